use super::*;
use serde_json::json;

fn render(template: &str) -> String {
    Template::parse(template).unwrap().render(&data()).unwrap()
}

fn failure(template: &str) -> String {
    match Template::parse(template) {
        Err(error) => error.to_string(),
        Ok(template) => template.render(&data()).unwrap_err().to_string(),
    }
}

fn data() -> Value {
    json!({
        "Id": "0123456789ab",
        "Name": "web",
        "Names": ["web", "www"],
        "Size": 4_260_000,
        "Ratio": 0.25,
        "Running": true,
        "Paused": false,
        "Error": "",
        "Nothing": null,
        "State": {"Pid": 42, "ExitCode": 0, "Health": {"Status": "healthy"}},
        "Config": {
            "Labels": {"app": "shop", "com.example/x": "y"},
            "Env": ["A=1", "B=<2>"],
        },
        "Mounts": [{"Source": "/a", "Destination": "/b"}, {"Source": "/c", "Destination": "/d"}],
        "Ports": {},
        "host": {"ociRuntime": {"name": "umiak"}},
    })
}

#[test]
fn fields_and_text() {
    for (template, expected) in [
        ("plain", "plain"),
        ("", ""),
        ("{{.Name}}", "web"),
        ("a{{.Id}}b{{ .Name }}c", "a0123456789abbwebc"),
        ("{{.State.Pid}}", "42"),
        ("{{.State.Health.Status}}", "healthy"),
        ("{{$.Name}} {{$.State.Pid}}", "web 42"),
        ("{{(.State).Pid}}", "42"),
        ("{{.ID}}", "0123456789ab"),
        ("{{.Host.OCIRuntime.Name}}", "umiak"),
        ("{{.Config.Labels.app}}", "shop"),
        ("{{.Config.Labels.none}}", "<no value>"),
        ("{{.Ports.Any}}", "<no value>"),
        ("{{.Nothing}}", "<no value>"),
        ("{{.Config.Label \"app\"}}, {{with .Config}}{{.Label \"com.example/x\" | upper}}{{end}}", "shop, Y"),
        ("{{if eq (.Config.Label \"app\") \"shop\"}}yes{{end}}{{.Config.Label \"none\"}}", "yes"),
        ("{{.Nothing.Deeper}}", "<no value>"),
        ("größe {{.Name}} ✓", "größe web ✓"),
    ] {
        assert_eq!(render(template), expected, "{template}");
    }
}

#[test]
fn values_print_as_in_go() {
    for (template, expected) in [
        ("{{.Names}}", "[web www]"),
        ("{{.Running}} {{.Paused}}", "true false"),
        ("{{.Ratio}}", "0.25"),
        ("{{.Config.Labels}}", "map[app:shop com.example/x:y]"),
        ("{{.Mounts}}", "[map[Destination:/b Source:/a] map[Destination:/d Source:/c]]"),
        ("{{1e21}} {{1e20}} {{1e-5}} {{2.0}} {{1.5e300}}", "1e+21 100000000000000000000 1e-05 2 1.5e+300"),
        ("{{.Ports}}", "map[]"),
    ] {
        assert_eq!(render(template), expected, "{template}");
    }
    let nested = Template::parse("{{.}}").unwrap().render(&json!([null, {"a": null}])).unwrap();
    assert_eq!(nested, "[<nil> map[a:<nil>]]");
}

#[test]
fn json_of_values() {
    for (template, expected) in [
        ("{{json .Names}}", r#"["web","www"]"#),
        ("{{json .State}}", r#"{"ExitCode":0,"Health":{"Status":"healthy"},"Pid":42}"#),
        ("{{json .Config.Env}}", r#"["A=1","B=<2>"]"#),
        ("{{.Name | json}}", r#""web""#),
        ("{{json .Nothing}}", "null"),
    ] {
        assert_eq!(render(template), expected, "{template}");
    }
}

#[test]
fn constants() {
    for (template, expected) in [
        (r#"{{"a\tb\"\\\x41\u00e9\101"}}"#, "a\tb\"\\AéA"),
        ("{{`raw \\n \"x\"`}}", "raw \\n \"x\""),
        ("{{'a'}} {{'\\n'}} {{'é'}} {{'\\''}} {{'\\x7f'}}", "97 10 233 39 127"),
        (
            "{{10}} {{-3}} {{+4}} {{0x1F}} {{0o17}} {{017}} {{0b101}} {{1_000}} {{.5}}",
            "10 -3 4 31 15 15 5 1000 0.5",
        ),
        ("{{true}} {{false}}", "true false"),
        (r#"{{"}}"}}"#, "}}"),
    ] {
        assert_eq!(render(template), expected, "{template}");
    }
}

#[test]
fn control() {
    for (template, expected) in [
        ("{{if .Running}}up{{else}}down{{end}}", "up"),
        ("{{if .Paused}}p{{else if .Error}}e{{else if .Running}}r{{else}}x{{end}}!", "r!"),
        ("{{if .Paused}}p{{else if .Error}}e{{else}}x{{end}}", "x"),
        ("{{if .Ports}}ports{{end}}{{if .Names}}names{{end}}", "names"),
        ("{{with .State}}{{.Pid}} {{$.Name}}{{end}}", "42 web"),
        ("{{with .Error}}{{.}}{{else}}fine{{end}}", "fine"),
        ("{{with .Error}}{{.}}{{else with .Name}}{{.}}{{end}}", "web"),
        ("{{with $n := .Name}}{{$n}}{{end}}", "web"),
        ("{{range .Names}}<{{.}}>{{end}}", "<web><www>"),
        ("{{range $i, $n := .Names}}{{$i}}={{$n}};{{end}}", "0=web;1=www;"),
        ("{{range $n := .Names}}{{$n}}{{.}}{{end}}", "webwebwwwwww"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}:{{$v}} {{end}}", "app:shop com.example/x:y "),
        ("{{range .Ports}}x{{else}}none{{end}}", "none"),
        ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{range .Mounts}}{{.Source}}->{{.Destination}} {{end}}", "/a->/b /c->/d "),
        ("{{range $i, $m := .Mounts}}{{if $i}}, {{end}}{{$m.Source}}{{end}}", "/a, /c"),
        ("{{range 5}}{{if eq . 1}}{{continue}}{{end}}{{if eq . 3}}{{break}}{{end}}{{.}}{{end}}", "02"),
        ("{{range 2}}{{range 2}}{{break}}{{end}}{{.}}{{end}}", "01"),
        ("{{range split \"a,b\" \",\"}}{{.}};{{end}}", "a;b;"),
    ] {
        assert_eq!(render(template), expected, "{template}");
    }
}

#[test]
fn variables_keep_go_scopes() {
    for (template, expected) in [
        ("{{$x := 1}}{{$x}}", "1"),
        ("{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("{{$s := .State}}{{$s.Pid}}", "42"),
        ("{{$last := \"\"}}{{range .Names}}{{$last = .}}{{end}}{{$last}}", "www"),
        ("{{if $x := .Name}}{{$x}}{{end}}", "web"),
    ] {
        assert_eq!(render(template), expected, "{template}");
    }
    assert_eq!(
        failure("{{if true}}{{$x := 1}}{{end}}{{$x}}"),
        "template, line 1, column 32: variable \"$x\" is not defined"
    );
    assert!(failure("{{$y = 1}}").contains("\"$y\" is not defined"));
}

#[test]
fn trim_markers_and_comments() {
    for (template, expected) in [
        ("a  {{- .Name -}}  b", "awebb"),
        ("a \n\t{{- 3}} b", "a3 b"),
        ("{{3 -}}\n\n b", "3b"),
        ("{{-3}}", "-3"),
        ("a{{/* b }} */}}c", "ac"),
        ("a {{- /* b */ -}} c", "ac"),
        ("a {{/* b */ -}} c", "a c"),
    ] {
        assert_eq!(render(template), expected, "{template}");
    }
}

#[test]
fn functions() {
    for (template, expected) in [
        ("{{len .Names}} {{len .Name}} {{len .Config.Labels}}", "2 3 2"),
        ("{{index .Names 1}}", "www"),
        ("{{index .Config.Labels \"com.example/x\"}}", "y"),
        ("[{{index .Config.Labels \"none\"}}]", "[]"),
        ("{{(index .Mounts 0).Source}}", "/a"),
        ("{{index .Mounts 1 \"Source\"}}", "/c"),
        ("{{slice .Id 0 4}} {{slice .Names 1}}", "0123 [www]"),
        ("{{eq .Name \"web\"}} {{ne .Name \"web\"}} {{eq .Size 1 2 4260000}}", "true false true"),
        ("{{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge \"b\" \"a\"}} {{lt 1.5 2}}", "true true false true true"),
        ("{{and .Running .Name}} {{and .Paused .Nope}}", "web false"),
        ("{{or .Error .Name}} {{or .Running .Nope}} {{not .Running}}", "web true false"),
        ("{{print .Name 1 2 \"x\"}}|{{println 1 \"a\"}}", "web1 2x|1 a\n"),
        (
            "{{printf \"%s-%05d|%-6s|%6s|%q|%v|%t|%x\" .Name 42 \"a\" \"b\" \"c\" .Names true 255}}",
            "web-00042|a     |     b|\"c\"|[web www]|true|ff",
        ),
        (
            "{{printf \"%.2f %6.1f %e %+d %c %U %% %T\" 1.005 2.25 1234.5 3 65 233 .Name}}",
            "1.00    2.2 1.234500e+03 +3 A U+00E9 % string",
        ),
        ("{{printf \"%d %s\" \"a\"}}{{printf \"x\" 1}}", "%!d(string=a) %!s(MISSING)x%!(EXTRA int=1)"),
        ("{{printf \"%*d|%-*d|\" 4 7 3 1}}", "   7|1  |"),
        (
            "{{printf \"%s\" .Names}} {{printf \"%s\" 3}} {{printf \"%!\"}}",
            "[web www] %!s(int=3) %!!(MISSING)",
        ),
        ("{{join .Names \", \"}} {{split \"a:b:c\" \":\"}}", "web, www [a b c]"),
        ("{{upper .Name}} {{lower \"ÀB\"}} {{title \"hello big world\"}}", "WEB àb Hello Big World"),
        (
            "{{truncate .Id 4}} {{truncate \"ab\" 10}} [{{pad .Name 1 2}}] [{{pad \"\" 3 3}}]",
            "0123 ab [ web  ] []",
        ),
        ("{{.Name | upper | printf \"%s %s\" \"x\"}}", "x WEB"),
        ("{{html \"<a&b>\"}} {{urlquery \"a b/c\"}}", "&lt;a&amp;b&gt; a+b%2Fc"),
        ("{{.State.Pid | eq 42}}", "true"),
    ] {
        assert_eq!(render(template), expected, "{template}");
    }
}

#[test]
fn parse_errors_tell_the_place() {
    for (template, expected) in [
        ("{{.Name", "line 1, column 1: \"{{\" is not closed by \"}}\""),
        ("a\nbc {{.Name", "line 2, column 4: \"{{\" is not closed"),
        ("{{}}", "column 3: a value is missing"),
        ("{{.Name | }}", "a value is missing"),
        ("{{if .A}}", "column 1: \"{{if}}\" has no \"{{end}}\""),
        ("{{range .A}}{{else}}", "\"{{range}}\" has no \"{{end}}\""),
        ("{{end}}", "unexpected \"{{end}}\""),
        ("x{{else}}", "column 2: unexpected \"{{else}}\""),
        ("{{if .A}}{{else}}{{else}}{{end}}", "unexpected \"{{else}}\""),
        ("{{nope .A}}", "column 3: function \"nope\" is not defined"),
        ("{{$x}}", "variable \"$x\" is not defined"),
        ("{{\"abc}}", "the quoted text is not closed"),
        ("{{\"a\\qb\"}}", "unknown escape \"\\q\""),
        ("{{''}}", "a character constant must hold one character"),
        ("{{'ab'}}", "a character constant must hold one character"),
        ("{{1x}}", "\"1x\" is not a number"),
        ("{{.A ! }}", "unexpected character '!'"),
        ("{{(.A}}", "unexpected \"}}\""),
        ("{{.A)}}", "unexpected \")\""),
        ("{{/* x }}", "the comment is not closed"),
        ("{{break}}", "\"break\" outside \"range\""),
        ("{{template \"x\"}}", "\"template\" is not supported"),
        ("{{.Label \"a\" \"b\"}}", ".Label takes no arguments"),
        ("{{.Name .Id}}", ".Name takes no arguments"),
        ("{{1 | 2}}", "2 takes no arguments"),
        ("größe {{é}}", "column 9: function \"é\""),
    ] {
        let error = Template::parse(template).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{template}: {error}");
    }
}

#[test]
fn render_errors_name_the_field() {
    for (template, expected) in [
        ("{{.Nmae}}", "template, at <.Nmae>: there is no field \"Nmae\" (did you mean \"Name\"?)"),
        ("{{.State.Xyzzy}}", "template, at <.State.Xyzzy>: there is no field \"Xyzzy\""),
        ("{{.Name.First}}", "field \"First\" of a string"),
        ("{{index .Names 7}}", "at <index>: index 7 of a list of 2"),
        ("{{index .Names -1}}", "index -1 of a list of 2"),
        ("{{len 3}}", "takes a string, list or map, got a number"),
        ("{{lt .Name 3}}", "a string cannot be compared with a number"),
        ("{{eq .Name}}", "takes two arguments or more, got 1"),
        ("{{upper}}", "takes one argument, got 0"),
        ("{{range .Name}}{{end}}", "\"range\" over a string"),
        ("{{join .Name \",\"}}", "takes a list, got a string"),
    ] {
        let error = failure(template);
        assert!(error.contains(expected), "{template}: {error}");
    }
}

#[test]
fn hostile_templates_do_no_harm() {
    for template in [
        "{{(".repeat(5000),
        "(".repeat(5000),
        format!("{{{{{}", "(".repeat(100_000)),
        "{{if 1}}".repeat(5000),
    ] {
        let _ = Template::parse(&template).map(|t| t.render(&data()));
    }
    assert!(failure(&format!("{{{{{}1{}}}}}", "(".repeat(200), ")".repeat(200))).contains("too deeply"));
    assert_eq!(render("{{printf \"%99999999999d\" 1 | len}}"), "10000");
    assert_eq!(render("{{pad \"a\" 99999999999 0 | len}}"), "10001");
    // Cut anywhere, a template is parsed or refused, never a panic.
    let whole =
        "a{{- if $x := .A}}{{printf \"%5.2f\\n\" (index .B 'c' 0x1f)}}é{{else}}{{/* x */}}{{end -}} b";
    for (end, _) in whole.char_indices() {
        let _ = Template::parse(&whole[..end]);
    }
}
