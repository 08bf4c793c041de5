//! The only place that writes to standard output and standard error: texts, tables and JSON as
//! Podman lays them out, errors with their hints, colours where a person looks on.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use serde_json::{Map, Value};

use crate::base::report;
use crate::base::template::{self, Template};
use crate::sys::parallel::in_parallel;

/// Output that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reader went away (`umiak ps | head -1`): nothing to complain about. Whoever gets this
    /// ends quietly.
    #[error("the reader of the output is gone")]
    Closed,
    /// Any other failure, such as a full disk.
    #[error("writing the output")]
    Write(#[source] io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Write(error) }
    }
}

/// Writes `text` to standard output as it is.
pub fn print(text: &str) -> Result<(), Error> {
    print_bytes(text.as_bytes())
}

/// Writes `text` and a newline to standard output.
pub fn println(text: &str) -> Result<(), Error> {
    print(&format!("{text}\n"))
}

/// Writes bytes, which need not be text, to standard output.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Writes bytes to standard error.
pub fn eprint_bytes(bytes: &[u8]) -> Result<(), Error> {
    Ok(io::stderr().lock().write_all(bytes)?)
}

/// Tells an error: one line with its whole chain, and a second with the cure if it is known.
pub fn error(error: &dyn std::error::Error, hint: Option<&str>) {
    error_line(&report::chain(error), hint);
}

/// Tells an error whose text is made already.
pub fn error_line(text: &str, hint: Option<&str>) {
    let colour = colourful(&io::stderr());
    let mut lines = format!("{} {}\n", painted(colour, Style::Error, "error:"), one_line(text));
    if let Some(hint) = hint {
        lines.push_str(&format!("{} {}\n", painted(colour, Style::Hint, "hint:"), one_line(hint)));
    }
    // There is nobody left to tell if standard error is gone too.
    let _ = eprint_bytes(lines.as_bytes());
}

/// Tells something that went wrong but does not stop the command.
pub fn warning(text: &str) {
    let colour = colourful(&io::stderr());
    let line = format!("{} {}\n", painted(colour, Style::Warning, "warning:"), one_line(text));
    let _ = eprint_bytes(line.as_bytes());
}

/// How a piece of text is set off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Red and bold.
    Error,
    /// Yellow and bold.
    Warning,
    /// Cyan and bold.
    Hint,
    /// Green.
    Good,
    /// Bold.
    Strong,
    /// Faint.
    Dim,
}

/// Sets `text` off with colours if `colour`.
pub fn painted(colour: bool, style: Style, text: &str) -> String {
    let code = match style {
        Style::Error => "1;31",
        Style::Warning => "1;33",
        Style::Hint => "1;36",
        Style::Good => "32",
        Style::Strong => "1",
        Style::Dim => "2",
    };
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Whether colours that were asked for may be written: not against `NO_COLOR`.
pub fn allows_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether colours may be written to `stream`: it is a terminal that knows them and
/// `NO_COLOR` (no-color.org) is unset or empty.
pub fn colourful(stream: &impl IsTerminal) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stream.is_terminal() && !dumb && !set("NO_COLOR")
}

/// As [`visible`], and newlines too: a text that came from an image must not pass for a second line
/// of ours.
pub fn one_line(text: &str) -> String {
    visible(text).replace('\n', "\\n")
}

/// Makes control characters visible: names and labels come from images, and must neither move
/// the cursor of whoever lists them nor break the columns. Newlines stay.
pub fn visible(text: &str) -> String {
    without_control(text, |c| c == '\n').into_owned()
}

/// The same of a line of a table, whose tabs stay too.
fn shown(line: &str) -> Cow<'_, str> {
    without_control(line, |c| matches!(c, '\n' | '\t'))
}

fn without_control(text: &str, stays: fn(char) -> bool) -> Cow<'_, str> {
    let hidden = |c: char| c.is_control() && !stays(c);
    if !text.chars().any(hidden) {
        return text.into();
    }
    text.chars().map(|c| if hidden(c) { c.escape_default().to_string() } else { c.into() }).collect()
}

/// JSON with Podman's indentation and a final newline.
pub fn json(value: &Value) -> String {
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"     ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, indent);
    // A `Value` always serializes into memory; an error would leave the text empty.
    let _ = serde::Serialize::serialize(value, &mut serializer);
    bytes.push(b'\n');
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a listing shows when nothing else is asked for.
pub struct Listing<'a> {
    /// The default columns, as `{{.ID}}\t{{.Names}}` without `table`.
    pub default: &'a str,
    /// Headers that are not the field's name in upper-case words: `("ID", "CONTAINER ID")`, and
    /// further fields that `--format "table …"` may name even when no row is there.
    pub headers: &'a [(&'a str, &'a str)],
}

impl Listing<'_> {
    /// Lays out `rows` by the value of `--format`: none or `table` (the default columns),
    /// `table TEMPLATE`, `json`, or a template that is applied to each row.
    pub fn render(
        &self,
        format: Option<&str>,
        heading: bool,
        rows: &[Value],
    ) -> Result<String, template::Error> {
        self.render_made(format, heading, rows, |row| Cow::Borrowed(row))
    }

    /// The same of things whose rows are made one by one, on all processors where there are many. All rows have
    /// the same fields.
    pub fn render_made<T: Sync>(
        &self,
        format: Option<&str>,
        heading: bool,
        things: &[T],
        row: impl Fn(&T) -> Cow<'_, Value> + Sync,
    ) -> Result<String, template::Error> {
        let format = normalized(format.unwrap_or("table"));
        if is_json(&format) {
            return Ok(json(&things.iter().map(|thing| row(thing).into_owned()).collect()));
        }
        let columns = match format.strip_prefix("table") {
            Some("") => Some(self.default),
            Some(rest) if rest.starts_with([' ', '\t']) => Some(rest.trim()),
            _ => None,
        };
        let template = Template::parse(columns.unwrap_or(&format))?;
        let lines = in_parallel(things, |thing| template.render(&row(thing)));
        if columns.is_none() {
            return lines.into_iter().map(|line| line.map(|line| line + "\n")).collect();
        }
        // A template that does more than name fields may not fit the header's plain texts.
        let header = heading.then(|| template.render(&self.header(things.first().map(row).as_deref())).ok());
        let lines = header.flatten().map(Ok).into_iter().chain(lines);
        Ok(table(&lines.collect::<Result<Vec<_>, _>>()?))
    }

    /// The default columns of many things, by their fields' texts: what [`Listing::render_made`] gives without a
    /// format, in a small part of the time.
    pub fn render_default<'t, T>(
        &self,
        heading: bool,
        things: &'t [T],
        field: impl Fn(&'t T, &str) -> Cow<'t, str>,
    ) -> String {
        let fields: Vec<String> = template_fields(self.default).collect();
        let mut cells = Vec::with_capacity((things.len() + 1) * fields.len());
        if heading {
            let known = |field: &String| self.headers.iter().find(|(name, _)| name == field);
            let titles = fields
                .iter()
                .map(|field| known(field).map_or_else(|| title(field), |(_, t)| (*t).to_owned()));
            cells.extend(titles.map(Cow::Owned));
        }
        for thing in things {
            cells.extend(fields.iter().map(|name| field(thing, name)));
        }
        plain_table(&cells, fields.len()).unwrap_or_else(|| {
            let rows = cells.chunks(fields.len());
            table(&rows.map(|row| row.join("\t")).collect::<Vec<_>>())
        })
    }

    /// The row that renders to the header: each field's value is its title.
    fn header(&self, row: Option<&Value>) -> Value {
        let mut header = Map::new();
        for key in row.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            header.insert(key.clone(), title(key).into());
        }
        for field in template_fields(self.default) {
            let title = title(&field);
            header.entry(field).or_insert_with(|| title.into());
        }
        for (field, title) in self.headers {
            header.insert((*field).to_owned(), (*title).into());
        }
        Value::Object(header)
    }
}

/// Renders what several `inspect`ed objects say: a JSON list, or a template's line for each.
pub fn values(format: Option<&str>, found: Vec<Value>) -> Result<String, template::Error> {
    match format.map(str::trim) {
        None | Some("json" | "") => Ok(json(&Value::Array(found))),
        Some(format) => {
            let template = Template::parse(format)?;
            found.iter().map(|value| template.render(value).map(|line| line + "\n")).collect()
        }
    }
}

/// Renders one value (`info`, `version`, `inspect`) by `--format`; without one, or with `json`, as JSON.
pub fn value(format: Option<&str>, value: &Value) -> Result<String, template::Error> {
    let format = normalized(format.unwrap_or("json"));
    if is_json(&format) {
        return Ok(json(value));
    }
    Ok(Template::parse(&format)?.render(value)? + "\n")
}

/// Shells hand over `\t` and `\n` as two characters; Podman takes them for the real ones.
fn normalized(format: &str) -> String {
    format.trim().replace("\\t", "\t").replace("\\n", "\n")
}

fn is_json(format: &str) -> bool {
    let bare: String = format.chars().filter(|c| !c.is_whitespace()).collect();
    matches!(bare.as_str(), "json" | "{{json.}}" | "{{json}}")
}

/// The top-level fields that a simple template names.
fn template_fields(template: &str) -> impl Iterator<Item = String> {
    template.split("{{.").skip(1).map(|rest| rest.chars().take_while(|c| c.is_alphanumeric()).collect())
}

/// `CreatedAt` → `CREATED AT`, `ID` → `ID`.
fn title(field: &str) -> String {
    let mut title = String::new();
    let mut lower_before = false;
    for c in field.chars() {
        if c.is_uppercase() && lower_before {
            title.push(' ');
        }
        lower_before = c.is_lowercase();
        title.extend(c.to_uppercase());
    }
    title
}

/// What [`table`] makes of rows of so many cells, if all of them are plain: no text that has to be looked at by
/// characters, split or made visible.
fn plain_table(cells: &[Cow<'_, str>], columns: usize) -> Option<String> {
    // One pass over all bytes of a cell, without a branch in it.
    let plain = |cell: &str| cell.bytes().fold(true, |plain, byte| plain & (0x20..0x7f).contains(&byte));
    let mut widths = vec![LEAST_WIDTH; columns];
    for row in cells.chunks_exact(columns) {
        for (cell, width) in row.iter().zip(&mut widths) {
            if !plain(cell) {
                return None;
            }
            *width = (*width).max(cell.len() + 2);
        }
    }
    let line = widths.iter().sum::<usize>() + 1;
    let mut text = String::with_capacity(cells.len() / columns * line);
    for row in cells.chunks_exact(columns) {
        let last = columns - 1;
        for (cell, width) in row[..last].iter().zip(&widths) {
            text.push_str(cell);
            push_spaces(&mut text, width - cell.len());
        }
        text.push_str(&row[last]);
        text.push('\n');
    }
    Some(text)
}

/// Characters of a column at least.
const LEAST_WIDTH: usize = 12;

fn push_spaces(text: &mut String, mut count: usize) {
    const SPACES: &str = "                                ";
    while count > 0 {
        let some = count.min(SPACES.len());
        text.push_str(&SPACES[..some]);
        count -= some;
    }
}

/// Lines whose cells are parted by tabs, laid out like Podman's tabwriter: each column but the
/// last is at least 12 wide and ends in at least two spaces.
pub fn table(lines: &[String]) -> String {
    let lines: Vec<Cow<'_, str>> = lines.iter().map(|line| shown(line)).collect();
    let rows = || lines.iter().flat_map(|line| line.split('\n'));
    // Most texts are plain: their bytes are their characters.
    let width = |cell: &str| if cell.is_ascii() { cell.len() } else { cell.chars().count() };
    let mut widths: Vec<usize> = Vec::new();
    for row in rows() {
        let mut cells = row.split('\t').enumerate().peekable();
        while let Some((column, cell)) = cells.next() {
            if widths.len() == column {
                widths.push(LEAST_WIDTH);
            }
            if cells.peek().is_some() {
                widths[column] = widths[column].max(width(cell) + 2);
            }
        }
    }
    let mut text = String::with_capacity(lines.len() * (widths.iter().sum::<usize>() + 40));
    for row in rows() {
        let mut cells = row.split('\t').enumerate().peekable();
        while let Some((column, cell)) = cells.next() {
            text.push_str(cell);
            if cells.peek().is_some() {
                push_spaces(&mut text, widths[column] - width(cell));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LISTING: Listing<'_> =
        Listing { default: "{{.ID}}\t{{.Image}}\t{{.Names}}", headers: &[("ID", "CONTAINER ID")] };

    fn rows() -> Vec<Value> {
        vec![
            json!({"ID": "0123456789ab", "Image": "localhost/a-long-name:latest", "Names": "web", "CreatedAt": "then"}),
            json!({"ID": "ba9876543210", "Image": "b", "Names": "db", "CreatedAt": "now"}),
        ]
    }

    #[test]
    fn tables_look_like_podmans() {
        let expected = "\
CONTAINER ID  IMAGE                         NAMES
0123456789ab  localhost/a-long-name:latest  web
ba9876543210  b                             db
";
        assert_eq!(LISTING.render(None, true, &rows()).unwrap(), expected);
        assert_eq!(LISTING.render(Some("table"), true, &rows()).unwrap(), expected);
        for heading in [true, false] {
            for odd in ["", "x", "ü", "two\nlines", "a\tb", "\x1b[2J", "\x7f"] {
                let mut rows = rows();
                rows[1]["Image"] = odd.into();
                let plain =
                    LISTING.render_default(heading, &rows, |row, name| row[name].as_str().unwrap().into());
                assert_eq!(plain, LISTING.render(None, heading, &rows).unwrap());
            }
        }
        let body = expected.split_once('\n').unwrap().1;
        assert_eq!(LISTING.render(None, false, &rows()).unwrap(), body);
        assert_eq!(LISTING.render(None, true, &[]).unwrap(), "CONTAINER ID  IMAGE       NAMES\n");
        assert_eq!(LISTING.render(None, false, &[]).unwrap(), "");
    }

    #[test]
    fn formats_of_listings() {
        let render = |format| LISTING.render(Some(format), true, &rows()).unwrap();
        assert_eq!(render("{{.Names}}"), "web\ndb\n");
        assert_eq!(render(r"{{.Names}}\t{{.ID}}"), "web\t0123456789ab\ndb\tba9876543210\n");
        assert_eq!(
            render(r"table {{.Names}}\t{{.CreatedAt}}"),
            "NAMES       CREATED AT\nweb         then\ndb          now\n"
        );
        for format in ["json", "{{json .}}", "{{ json . }}"] {
            let parsed: Value = serde_json::from_str(&render(format)).unwrap();
            assert_eq!(parsed, Value::Array(rows()));
        }
        assert!(LISTING.render(Some("{{.Nmaes}}"), true, &rows()).is_err());
        assert!(LISTING.render(Some("{{"), true, &[]).is_err());
    }

    #[test]
    fn single_values() {
        let info = json!({"host": {"arch": "amd64"}});
        assert_eq!(value(Some("{{.Host.Arch}}"), &info).unwrap(), "amd64\n");
        assert_eq!(value(None, &info).unwrap(), json(&info));
        assert_eq!(json(&json!({"a": 1})), "{\n     \"a\": 1\n}\n");
    }

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(visible("a\x1b[2Jb\u{9b}"), "a\\u{1b}[2Jb\\u{9b}");
        assert_eq!(visible("plain é\n"), "plain é\n");
        let listed = table(&["a\x1b\tb".to_owned()]);
        assert_eq!(listed, "a\\u{1b}     b\n");
    }

    #[test]
    fn titles_and_colours() {
        assert_eq!(title("CreatedAt"), "CREATED AT");
        assert_eq!(title("ID"), "ID");
        assert_eq!(painted(false, Style::Error, "x"), "x");
        assert_eq!(painted(true, Style::Good, "x"), "\x1b[32mx\x1b[0m");
    }

    #[test]
    fn a_gone_reader_is_no_error() {
        assert!(matches!(Error::from(io::Error::from(io::ErrorKind::BrokenPipe)), Error::Closed));
        assert!(matches!(Error::from(io::Error::from(io::ErrorKind::StorageFull)), Error::Write(_)));
    }
}
