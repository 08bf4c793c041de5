use super::*;

fn steps(text: &str) -> Vec<Instruction> {
    let text = format!("FROM scratch\n{text}");
    let file = parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {}", told(&error)));
    file.stages[0].steps.iter().map(|step| step.instruction.clone()).collect()
}

fn step(text: &str) -> Instruction {
    let mut steps = steps(text);
    assert_eq!(steps.len(), 1, "{text}: {steps:?}");
    steps.remove(0)
}

fn told(error: &dyn std::error::Error) -> String {
    crate::base::report::chain(error)
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn lookup(name: &str) -> Option<String> {
    let values =
        [("A", "a"), ("E", ""), ("W", "one two"), ("P", "foo/bar/baz.tar.gz"), ("STAR", "*"), ("N", "80 81")];
    values.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

fn expanded(text: &str) -> Instruction {
    step(text).expand('\\', &lookup).unwrap_or_else(|error| panic!("{text}: {}", told(&error)))
}

#[test]
fn a_whole_file() {
    let text = "# syntax=docker/dockerfile:1\n\
                # Escape = `\n\
                # a comment\n\
                ARG BASE=debian VERSION\n\
                from --platform=$TARGETPLATFORM ${BASE}:12 As Build-1\n\
                \n\
                RUN echo a `\n  # a comment\n\n  && echo b\n\
                COPY --from=0 --chown=1:2 a b /c/\n\
                FROM scratch\n\
                CMD [\"/x\", \"y z\"]";
    let file = parse(text.as_bytes()).unwrap();
    assert_eq!(file.escape, '`');
    assert_eq!(file.arguments.len(), 2);
    assert_eq!(file.arguments[0], Argument { name: "BASE".into(), default: Some("debian".into()) });
    assert_eq!(file.arguments[1], Argument { name: "VERSION".into(), default: None });
    assert_eq!(file.warnings, ["line 7: RUN has an empty line within it, which is skipped"]);
    let [first, second] = &file.stages[..] else { panic!("{file:?}") };
    assert_eq!((first.line, &*first.base), (5, "${BASE}:12"));
    assert_eq!(first.text, "from --platform=$TARGETPLATFORM ${BASE}:12 As Build-1");
    assert_eq!(
        (first.name.as_deref(), first.platform.as_deref()),
        (Some("build-1"), Some("$TARGETPLATFORM"))
    );
    assert_eq!((second.line, &*second.base, second.name.as_deref()), (12, "scratch", None));
    assert_eq!((first.steps[0].line, &*first.steps[0].text), (7, "RUN echo a   && echo b"));
    assert_eq!((first.steps[1].line, second.steps[0].line), (11, 13));
    assert_eq!(second.steps[0].instruction.keyword(), "CMD");
    assert_eq!(second.steps[0].instruction, Instruction::Cmd(Command::Exec(strings(&["/x", "y z"]))));
}
