// Package tap writes the Test Anything Protocol. OCI runtime-tools wants a package of this path and these
// names, which Debian does not have; scripts/conformance puts this one in its place.
package tap

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// T numbers the test points of one program.
type T struct {
	Writer io.Writer
	count  *int
	todo   bool
}

// New starts at the first point.
func New() *T {
	return &T{Writer: os.Stdout, count: new(int)}
}

// Header says how many points follow; 0 leaves that to AutoPlan.
func (t *T) Header(points int) {
	fmt.Fprintln(t.Writer, "TAP version 13")
	if points > 0 {
		fmt.Fprintf(t.Writer, "1..%d\n", points)
	}
}

// AutoPlan says how many points there were.
func (t *T) AutoPlan() {
	fmt.Fprintf(t.Writer, "1..%d\n", *t.count)
}

// Ok is a point.
func (t *T) Ok(good bool, what string) {
	verdict := "ok"
	if !good {
		verdict = "not ok"
	}
	directive := ""
	if t.todo {
		directive = " # TODO"
	}
	*t.count++
	fmt.Fprintf(t.Writer, "%s %d%s - %s\n", verdict, *t.count, directive, strings.ReplaceAll(what, "\n", " "))
}

// Pass is a good point, Fail a bad one.
func (t *T) Pass(what string) { t.Ok(true, what) }

// Fail is a bad point.
func (t *T) Fail(what string) { t.Ok(false, what) }

// Skip are points that were not looked at.
func (t *T) Skip(points int, why string) {
	for ; points > 0; points-- {
		*t.count++
		fmt.Fprintf(t.Writer, "ok %d # SKIP %s\n", *t.count, why)
	}
}

// Todo has points that may be bad.
func (t *T) Todo() *T {
	return &T{Writer: t.Writer, count: t.count, todo: true}
}

// Diagnostic is a remark.
func (t *T) Diagnostic(text string) {
	fmt.Fprintln(t.Writer, "# "+strings.ReplaceAll(text, "\n", "\n# "))
}

// Diagnosticf is a formatted remark.
func (t *T) Diagnosticf(format string, values ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, values...))
}

// YAML is a value to the last point; JSON is YAML, too.
func (t *T) YAML(value interface{}) error {
	text, err := json.MarshalIndent(value, "  ", "  ")
	if err == nil {
		fmt.Fprintf(t.Writer, "  ---\n  %s\n  ...\n", text)
	}
	return err
}
