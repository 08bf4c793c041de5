//! The tree and the data to text.

use std::borrow::Cow;

use serde_json::Value;

use super::error::{Error, RenderProblem};
use super::parse::{Base, Command, Node, Operand, Pipeline};
use super::{functions, print};
use crate::base::suggest;

type Val<'a> = Cow<'a, Value>;

/// Whether a list of nodes ran to its end.
enum Flow {
    Next,
    Break,
    Continue,
}

struct Evaluation<'a> {
    out: String,
    variables: Vec<(&'a str, Val<'a>)>,
}

/// Renders `nodes` with `data` as `.` and `$`.
pub fn render(nodes: &[Node], data: &Value) -> Result<String, Error> {
    let mut evaluation = Evaluation { out: String::new(), variables: vec![("$", Cow::Borrowed(data))] };
    evaluation.nodes(nodes, &Cow::Borrowed(data))?;
    Ok(evaluation.out)
}

impl<'a> Evaluation<'a> {
    fn nodes(&mut self, nodes: &'a [Node], dot: &Val<'a>) -> Result<Flow, Error> {
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&print::result(&value));
                    } else {
                        self.set(pipeline, value);
                    }
                }
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
                block => match self.block(block, dot)? {
                    Flow::Next => {}
                    stop => return Ok(stop),
                },
            }
        }
        Ok(Flow::Next)
    }

    fn block(&mut self, node: &'a Node, dot: &Val<'a>) -> Result<Flow, Error> {
        let scope = self.variables.len();
        let flow = match node {
            Node::If { condition, then, otherwise } => {
                let value = self.pipeline(condition, dot)?;
                let truth = functions::truth(&value);
                self.set(condition, value);
                self.nodes(if truth { then } else { otherwise }, dot)?
            }
            Node::With { value: pipeline, then, otherwise } => {
                let value = self.pipeline(pipeline, dot)?;
                self.set(pipeline, value.clone());
                if functions::truth(&value) { self.nodes(then, &value)? } else { self.nodes(otherwise, dot)? }
            }
            Node::Range { over, body, otherwise } => self.range(over, body, otherwise, dot)?,
            _ => Flow::Next,
        };
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn range(
        &mut self,
        over: &'a Pipeline,
        body: &'a [Node],
        otherwise: &'a [Node],
        dot: &Val<'a>,
    ) -> Result<Flow, Error> {
        let value = self.pipeline(over, dot)?;
        let elements: Box<dyn Iterator<Item = (Value, Val<'a>)>> = match &value {
            Cow::Borrowed(Value::Array(items)) => {
                Box::new(items.iter().enumerate().map(|(i, item)| (i.into(), Cow::Borrowed(item))))
            }
            Cow::Owned(Value::Array(items)) => {
                Box::new(items.clone().into_iter().enumerate().map(|(i, item)| (i.into(), Cow::Owned(item))))
            }
            value if value.is_object() => Box::new(sorted(value).into_iter()),
            value if value.is_null() => Box::new(std::iter::empty()),
            value => match value.as_i64() {
                Some(end) => Box::new((0..end).map(|i| (i.into(), Cow::Owned(i.into())))),
                None => {
                    let problem = RenderProblem::NotARange(print::kind(value));
                    return Err(Error::Render { at: over.commands[0].head.text(), problem });
                }
            },
        };
        let mut any = false;
        for (key, element) in elements {
            any = true;
            let scope = self.variables.len();
            match over.variables.as_slice() {
                [] => {}
                [only] => self.set_one(only, over.assigns, element.clone()),
                [first, second, ..] => {
                    self.set_one(first, over.assigns, Cow::Owned(key));
                    self.set_one(second, over.assigns, element.clone());
                }
            }
            let flow = self.nodes(body, &element)?;
            self.variables.truncate(scope);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        if any { Ok(Flow::Next) } else { self.nodes(otherwise, dot) }
    }

    fn set(&mut self, pipeline: &'a Pipeline, value: Val<'a>) {
        if let [name, ..] = pipeline.variables.as_slice() {
            self.set_one(name, pipeline.assigns, value);
        }
    }

    fn set_one(&mut self, name: &'a str, assigns: bool, value: Val<'a>) {
        let known = self.variables.iter_mut().rev().find(|(known, _)| assigns && *known == name);
        match known {
            Some((_, slot)) => *slot = value,
            None => self.variables.push((name, value)),
        }
    }

    fn pipeline(&mut self, pipeline: &'a Pipeline, dot: &Val<'a>) -> Result<Val<'a>, Error> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, last, dot)?);
        }
        Ok(last.unwrap_or(Cow::Owned(Value::Null)))
    }

    fn command(
        &mut self,
        command: &'a Command,
        last: Option<Val<'a>>,
        dot: &Val<'a>,
    ) -> Result<Val<'a>, Error> {
        let Base::Function(name) = &command.head.base else {
            return self.operand(&command.head, dot);
        };
        let failed = |problem| Error::Render { at: name.clone(), problem };
        if name == "and" || name == "or" {
            // The first argument that decides is the value; the rest is not looked at.
            let mut value = None;
            for argument in &command.arguments {
                let next = self.operand(argument, dot)?;
                if functions::truth(&next) == (name == "or") {
                    return Ok(next);
                }
                value = Some(next);
            }
            let missing = RenderProblem::ArgumentCount { want: "one argument or more", got: 0 };
            return last.or(value).ok_or_else(|| failed(missing));
        }
        let mut arguments = Vec::with_capacity(command.arguments.len() + 1);
        for argument in &command.arguments {
            arguments.push(self.operand(argument, dot)?);
        }
        arguments.extend(last);
        functions::call(name, &arguments).map(Cow::Owned).map_err(failed)
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Val<'a>) -> Result<Val<'a>, Error> {
        let mut value = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Constant(value) => Cow::Borrowed(value),
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map_or(Cow::Owned(Value::Null), |(_, value)| value.clone())
            }
            Base::Function(name) => {
                functions::call(name, &[]).map(Cow::Owned).map_err(|problem| self.failed(operand, problem))?
            }
            Base::Parenthesis(pipeline) => self.pipeline(pipeline, dot)?,
        };
        for name in &operand.fields {
            value = field(value, name).map_err(|problem| self.failed(operand, problem))?;
        }
        Ok(value)
    }

    fn failed(&self, operand: &Operand, problem: RenderProblem) -> Error {
        Error::Render { at: operand.text(), problem }
    }
}

fn sorted<'a>(value: &Val<'a>) -> Vec<(Value, Val<'a>)> {
    let mut pairs: Vec<(Value, Val<'a>)> = match value {
        Cow::Borrowed(Value::Object(map)) => {
            map.iter().map(|(key, value)| (key.as_str().into(), Cow::Borrowed(value))).collect()
        }
        Cow::Owned(Value::Object(map)) => {
            map.iter().map(|(key, value)| (key.as_str().into(), Cow::Owned(value.clone()))).collect()
        }
        _ => Vec::new(),
    };
    pairs.sort_by(|(a, _), (b, _)| a.as_str().cmp(&b.as_str()));
    pairs
}

/// The field `name` of a value; `Null` stands for a map's missing key.
fn field<'a>(value: Val<'a>, name: &str) -> Result<Val<'a>, RenderProblem> {
    let map = match value.as_ref() {
        Value::Object(map) => map,
        Value::Null => return Ok(Cow::Owned(Value::Null)),
        other => return Err(RenderProblem::FieldOf { name: name.to_owned(), kind: print::kind(other) }),
    };
    let exported = name.starts_with(char::is_uppercase);
    let key = if map.contains_key(name) {
        Some(name.to_owned())
    } else if exported {
        map.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned()
    } else {
        None
    };
    let Some(key) = key else {
        let identifier = |key: &String| key.chars().all(|c| c.is_ascii_alphanumeric());
        if exported && !map.is_empty() && map.keys().all(identifier) {
            let similar = suggest::closest(name, map.keys().map(String::as_str)).map(str::to_owned);
            return Err(RenderProblem::NoField { name: name.to_owned(), similar });
        }
        return Ok(Cow::Owned(Value::Null));
    };
    Ok(match value {
        Cow::Borrowed(value) => Cow::Borrowed(&value[&key]),
        Cow::Owned(mut value) => Cow::Owned(value[&key].take()),
    })
}
