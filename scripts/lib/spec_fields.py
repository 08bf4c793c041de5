"""The table of docs/conformance.md that says which tests prove which field of a configuration.

A test says so itself, in lines before it:

    // spec: linux.sysctl, domainname          (# in a shell script of the guest)
    // spec-refused: linux.mountLabel          that it is refused, by name, where it cannot be given

`tests/conformance/fields` lists all fields of the specification. What is in it must be proved, what is proved must
be in it, and the page must say what the tests say.
"""

import os
import re

HERE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
FIELDS = os.path.join(HERE, "tests/conformance/fields")
DOCUMENT = os.path.join(HERE, "docs/conformance.md")
TITLE = "Fields of config.json"
PLACES = ("tests/runtime_oci", "tests/runtime_api.rs", "tests/guest", "tests/e2e", "src")
# What a shell script of the guest calls its checks by.
CHECK = re.compile(r"""^\s*(?:check|same|refused|eventually)\s+(?:"([^"]+)"|'([^']+)'|(\S+))|(?:ok|fail)\s+"([^"]+)\"""")


def fields():
    with open(FIELDS) as file:
        return [line.strip() for line in file if line.strip() and not line.startswith("#")]


def sources():
    for place in PLACES:
        path = os.path.join(HERE, place)
        if os.path.isfile(path):
            yield path
        for root, directories, files in os.walk(path):
            directories.sort()
            yield from (os.path.join(root, name) for name in sorted(files) if name.endswith((".rs", ".sh")))


def proofs():
    """({field: [(test, refused)]}, mistakes); a test is named FILE: NAME."""
    found, mistakes = {}, []
    for path in sources():
        relative, pending, is_test = os.path.relpath(path, HERE), [], False
        with open(path) as file:
            lines = file.readlines()
        for number, line in enumerate(lines, 1):
            said = re.match(r"\s*(?://|#) (spec|spec-refused): (.*)$", line)
            if said:
                names = [name.strip() for name in said.group(2).split(",") if name.strip()]
                pending += [(name, said.group(1) != "spec", number) for name in names]
                is_test = path.endswith(".sh")
                continue
            if line.strip() == "#[test]":
                is_test = True
            if not pending:
                continue
            if path.endswith(".sh"):
                match = CHECK.match(line)
                name = match and next(group for group in match.groups() if group)
            else:
                match = re.match(r"\s*fn (\w+)\(", line)
                name = match and match.group(1)
                # The tests of the runtime's own interface have a main of their own.
                if match and not is_test and "runtime_api" not in path:
                    mistakes.append(f"{relative}:{number}: {name} is no test, and says what it proves")
            if name:
                for field, refused, _ in pending:
                    found.setdefault(field, []).append((f"{relative}: {name}", refused))
                pending, is_test = [], False
        mistakes += [f"{relative}:{number}: no test follows" for _, _, number in pending[:1]]
    return found, mistakes


def section():
    """(title, lines) for the page, and what is wrong."""
    known, (found, mistakes) = fields(), proofs()
    mistakes += [f"tests/conformance/fields: {field}: no test says that it proves it" for field in known if field not in found]
    mistakes += [f"{tests[0][0]}: {field} is not in tests/conformance/fields" for field, tests in found.items() if field not in known]
    lines = [
        f"## {TITLE}", "",
        "Every field of the OCI runtime specification 1.3 that is not for another system's kernel, and the tests that prove what",
        "becomes of it. They say so themselves (`// spec:` and `// spec-refused:` before a test). What a machine has not got (a",
        "security module, resctrl, RDMA, limits of cgroup v1) is refused by name, and that is tested. Tests in `src` show what the",
        "kernel would be told; all others see it in a real one, those in `guest` in a virtual machine.", "",
        f"{sum(any(not refused for _, refused in found.get(field, [])) for field in known)} of {len(known)} fields are carried out, "
        f"{sum(bool(found.get(field)) and all(refused for _, refused in found[field]) for field in known)} only refused by name.", "",
        "| field | carried out: shown by | refused: shown by |", "|---|---|---|",
    ]
    for field in known:
        columns = [[], []]
        for test, refused in found.get(field, []):
            file, _, name = test.partition(": ")
            columns[refused].append(f"{name} ({file.removeprefix('tests/')})")
        lines.append(f"| `{field}` | " + " | ".join("<br>".join(dict.fromkeys(column)) for column in columns) + " |")
    return (TITLE, lines + [""]), mistakes


def check():
    """What is wrong: fields without a test, unknown fields, a page that says something else."""
    (_, lines), mistakes = section()
    with open(DOCUMENT) as file:
        if "\n".join(lines).strip() not in file.read():
            mistakes.append("docs/conformance.md is not what the tests say: scripts/conformance --fields makes it anew")
    return mistakes
