//! Tokens to a tree.

use serde_json::Value;

use super::error::{Error, ParseProblem};
use super::functions;
use super::lex::{self, Kind, Token};

/// Blocks and parentheses may nest this deep: a hostile template must not overflow the stack.
const MAX_DEPTH: usize = 100;

#[derive(Debug, Clone)]
pub enum Node {
    Text(String),
    /// Prints the pipeline's value, unless it only sets variables.
    Print(Pipeline),
    If {
        condition: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        value: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
}

#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Variables that are set: none, one, or (with `range`) two.
    pub variables: Vec<String>,
    /// `=` rather than `:=`.
    pub assigns: bool,
    /// Each command's value is the last argument of the next one.
    pub commands: Vec<Command>,
}

#[derive(Debug, Clone)]
pub struct Command {
    pub head: Operand,
    pub arguments: Vec<Operand>,
}

#[derive(Debug, Clone)]
pub struct Operand {
    pub base: Base,
    /// `.A.B` behind the base.
    pub fields: Vec<String>,
}

#[derive(Debug, Clone)]
pub enum Base {
    Dot,
    Constant(Value),
    Variable(String),
    Function(String),
    Parenthesis(Box<Pipeline>),
}

impl Operand {
    /// The operand as the user wrote it, or nearly so.
    pub fn text(&self) -> String {
        let mut text = match &self.base {
            Base::Dot if self.fields.is_empty() => ".".to_owned(),
            Base::Dot => String::new(),
            Base::Constant(value) => value.to_string(),
            Base::Variable(name) | Base::Function(name) => name.clone(),
            Base::Parenthesis(_) => "(…)".to_owned(),
        };
        for field in &self.fields {
            text.push('.');
            text.push_str(field);
        }
        text
    }
}

/// Parses a whole template.
pub fn parse(text: &str) -> Result<Vec<Node>, Error> {
    let mut parser = Parser {
        text,
        tokens: lex::lex(text)?,
        position: 0,
        variables: vec!["$".to_owned()],
        depth: 0,
        ranges: 0,
    };
    let (nodes, end) = parser.nodes()?;
    match end {
        None => Ok(nodes),
        Some((word, at)) => Err(parser.error(at, ParseProblem::Unexpected(format!("\"{{{{{word}}}}}\"")))),
    }
}

struct Parser<'t> {
    text: &'t str,
    tokens: Vec<Token>,
    /// The next token.
    position: usize,
    /// The variables that can be seen here.
    variables: Vec<String>,
    depth: usize,
    ranges: usize,
}

/// `end` or `else`, which closed a list of nodes, and where it stands. The rest of an `else`'s
/// action is still to be read; that of an `end` has been.
type Closer = Option<(String, usize)>;

impl Parser<'_> {
    fn error(&self, at: usize, problem: ParseProblem) -> Error {
        lex::error_at(self.text, at, problem)
    }

    /// The lexer closes every action it opens, so inside one there is always a next token.
    fn next(&mut self) -> Result<Token, Error> {
        let token = self.tokens.get(self.position).cloned();
        self.position += 1;
        token.ok_or_else(|| self.error(self.text.len(), ParseProblem::UnclosedAction))
    }

    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.position).map(|token| &token.kind)
    }

    /// Where the next token stands.
    fn here(&self) -> usize {
        self.tokens.get(self.position).map_or(self.text.len(), |token| token.at)
    }

    fn unexpected<T>(&self, token: &Token) -> Result<T, Error> {
        Err(self.error(token.at, ParseProblem::Unexpected(token.kind.describe())))
    }

    fn close(&mut self) -> Result<(), Error> {
        let token = self.next()?;
        if token.kind == Kind::Close { Ok(()) } else { self.unexpected(&token) }
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, Closer), Error> {
        let mut nodes = Vec::new();
        while self.peek().is_some() {
            let token = self.next()?;
            match token.kind {
                Kind::Text(text) => nodes.push(Node::Text(text)),
                Kind::Open => {
                    let word = match self.peek() {
                        Some(Kind::Word(word)) => word.clone(),
                        _ => String::new(),
                    };
                    match word.as_str() {
                        "end" => {
                            self.next()?;
                            self.close()?;
                            return Ok((nodes, Some((word, token.at))));
                        }
                        "else" => {
                            self.next()?;
                            return Ok((nodes, Some((word, token.at))));
                        }
                        _ => nodes.push(self.action(&word, token.at)?),
                    }
                }
                _ => return self.unexpected(&token),
            }
        }
        Ok((nodes, None))
    }

    fn action(&mut self, word: &str, at: usize) -> Result<Node, Error> {
        let leaf = match word {
            "if" | "with" | "range" => {
                self.next()?;
                return self.block(word, at);
            }
            "define" | "template" | "block" => {
                return Err(self.error(at, ParseProblem::Unsupported(word.to_owned())));
            }
            "break" => Some((Node::Break, "break")),
            "continue" => Some((Node::Continue, "continue")),
            _ => None,
        };
        if let Some((node, name)) = leaf {
            self.next()?;
            self.close()?;
            if self.ranges == 0 {
                return Err(self.error(at, ParseProblem::OutsideRange(name)));
            }
            return Ok(node);
        }
        let pipeline = self.pipeline(1)?;
        self.close()?;
        Ok(Node::Print(pipeline))
    }

    fn deeper(&mut self, at: usize) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.error(at, ParseProblem::TooDeep)) } else { Ok(()) }
    }

    /// `if`, `with` or `range` behind its keyword, up to its `end`.
    fn block(&mut self, word: &str, at: usize) -> Result<Node, Error> {
        self.deeper(at)?;
        let scope = self.variables.len();
        let is_range = word == "range";
        let head = self.pipeline(if is_range { 2 } else { 1 })?;
        self.close()?;
        self.ranges += usize::from(is_range);
        let (then, closer) = self.nodes()?;
        self.ranges -= usize::from(is_range);
        let keyword = match word {
            "if" => "if",
            "with" => "with",
            _ => "range",
        };
        let missing = |parser: &Self| parser.error(at, ParseProblem::MissingEnd(keyword));
        let otherwise = match closer {
            None => return Err(missing(self)),
            Some((word, _)) if word == "end" => Vec::new(),
            Some((_, else_at)) => match self.peek() {
                Some(Kind::Word(next)) if next == keyword && !is_range => {
                    // `else if` nests, and its `end` closes all of them.
                    self.next()?;
                    vec![self.block(keyword, else_at)?]
                }
                _ => {
                    self.close()?;
                    match self.nodes()? {
                        (nodes, Some((word, _))) if word == "end" => nodes,
                        (_, Some((word, at))) => {
                            return Err(
                                self.error(at, ParseProblem::Unexpected(format!("\"{{{{{word}}}}}\"")))
                            );
                        }
                        (_, None) => return Err(missing(self)),
                    }
                }
            },
        };
        self.variables.truncate(scope);
        self.depth -= 1;
        Ok(match keyword {
            "if" => Node::If { condition: head, then, otherwise },
            "with" => Node::With { value: head, then, otherwise },
            _ => Node::Range { over: head, body: then, otherwise },
        })
    }

    /// A pipeline up to (without) `}}` or `)`; it may set up to `most` variables.
    fn pipeline(&mut self, most: usize) -> Result<Pipeline, Error> {
        let (variables, assigns) = self.declaration(most)?;
        let mut commands = vec![self.command()?];
        while self.peek() == Some(&Kind::Pipe) {
            self.next()?;
            let at = self.here();
            let command = self.command()?;
            if !matches!(command.head.base, Base::Function(_)) {
                return Err(self.error(at, ParseProblem::NotAFunction(command.head.text())));
            }
            commands.push(command);
        }
        if !assigns {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipeline { variables, assigns, commands })
    }

    /// `$x :=`, `$x =`, and for `range` `$i, $x :=`.
    fn declaration(&mut self, most: usize) -> Result<(Vec<String>, bool), Error> {
        // Only looks ahead until it is sure: `{{$x.A}}` starts the same way.
        let mut ahead = self.tokens[self.position..].iter();
        let mut names = Vec::new();
        while names.len() < most {
            let Some(Token { kind: Kind::Variable(name), at, .. }) = ahead.next() else { break };
            names.push((name.clone(), *at));
            let assigns = match ahead.next().map(|token| &token.kind) {
                Some(Kind::Comma) => continue,
                Some(Kind::Declare) => false,
                Some(Kind::Assign) => true,
                _ => break,
            };
            if assigns && let Some((name, at)) = names.iter().find(|(name, _)| !self.variables.contains(name))
            {
                return Err(self.error(*at, ParseProblem::UnknownVariable(name.clone())));
            }
            self.position += 2 * names.len();
            return Ok((names.into_iter().map(|(name, _)| name).collect(), assigns));
        }
        Ok((Vec::new(), false))
    }

    fn command(&mut self) -> Result<Command, Error> {
        let at = self.here();
        let Some(mut head) = self.operand()? else {
            return Err(self.error(at, ParseProblem::MissingValue));
        };
        let mut arguments = Vec::new();
        while let Some(operand) = self.operand()? {
            arguments.push(operand);
        }
        // The one method that rows have, with Docker and Podman.
        if arguments.len() == 1
            && let Some(last) = head.fields.last_mut().filter(|last| *last == "Label")
        {
            last.push('s');
            let method = Operand { base: Base::Function(functions::LABEL.to_owned()), fields: Vec::new() };
            arguments.insert(0, std::mem::replace(&mut head, method));
        }
        if !arguments.is_empty() && !matches!(head.base, Base::Function(_)) {
            return Err(self.error(at, ParseProblem::NotAFunction(head.text())));
        }
        Ok(Command { head, arguments })
    }

    fn operand(&mut self) -> Result<Option<Operand>, Error> {
        if matches!(self.peek(), None | Some(Kind::Close | Kind::Pipe | Kind::Right)) {
            return Ok(None);
        }
        let token = self.next()?;
        let mut fields = Vec::new();
        let base = match token.kind {
            Kind::Dot => Base::Dot,
            Kind::Field(name) => {
                fields.push(name);
                Base::Dot
            }
            Kind::Constant(value) => Base::Constant(value),
            Kind::Variable(name) => {
                if !self.variables.contains(&name) {
                    return Err(self.error(token.at, ParseProblem::UnknownVariable(name)));
                }
                Base::Variable(name)
            }
            Kind::Word(name) => {
                if !functions::is_known(&name) {
                    return Err(self.error(token.at, ParseProblem::UnknownFunction(name)));
                }
                Base::Function(name)
            }
            Kind::Left => {
                self.deeper(token.at)?;
                let inner = self.pipeline(0)?;
                let close = self.next()?;
                if close.kind != Kind::Right {
                    return self.unexpected(&close);
                }
                self.depth -= 1;
                Base::Parenthesis(Box::new(inner))
            }
            _ => return self.unexpected(&token),
        };
        while let Some(Token { kind: Kind::Field(name), spaced: false, .. }) = self.tokens.get(self.position)
        {
            fields.push(name.clone());
            self.position += 1;
        }
        if matches!(base, Base::Constant(_) | Base::Function(_)) && !fields.is_empty() {
            let field = format!("\".{}\"", fields[0]);
            return Err(self.error(token.at, ParseProblem::Unexpected(field)));
        }
        Ok(Some(Operand { base, fields }))
    }
}
