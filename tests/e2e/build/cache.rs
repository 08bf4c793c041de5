//! What a build takes from those before it, and when it must not.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{build, context, sh, write};
use crate::requires;
use crate::support::{Need, Umiak};

/// How many steps came from a former build, and the image's ID.
fn cached(umiak: &Umiak, dir: &Path, options: &[&str]) -> (usize, String) {
    let told = build(umiak, dir, &[&["-t", "made"], options].concat()).ok().stdout;
    let id = told.lines().last().unwrap().to_owned();
    (told.lines().filter(|line| line.starts_with("--> Using cache")).count(), id)
}

const TEXT: &str = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /first\nCOPY file /\nRUN cat /proc/sys/kernel/random/uuid > /second\n";

#[test]
fn steps_are_taken_from_former_builds() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = context(&umiak, &[("Dockerfile", TEXT), ("file", "1")]);
    let read = || (sh(&umiak, "made", "cat /first"), sh(&umiak, "made", "cat /second"));
    assert_eq!(cached(&umiak, &dir, &[]).0, 0);
    let begin = read();
    assert_eq!(cached(&umiak, &dir, &[]).0, 3);
    assert_eq!(read(), begin);
    // Only its time is another one.
    let file = std::fs::File::options().write(true).open(dir.join("file")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(100_000)).unwrap();
    assert_eq!(cached(&umiak, &dir, &[]).0, 3);
    // Its content is, its mode is.
    write(&dir, "file", "2");
    assert_eq!(cached(&umiak, &dir, &[]).0, 1);
    assert!(read().0 == begin.0 && read().1 != begin.1);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.join("file"), mode).unwrap();
    assert_eq!(cached(&umiak, &dir, &[]).0, 1);
    // What was is taken again.
    write(&dir, "file", "1");
    std::fs::set_permissions(dir.join("file"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(cached(&umiak, &dir, &[]).0, 3);
    assert_eq!(read(), begin);
    // A file that is not copied is none of anybody's business.
    write(&dir, "other", "x");
    assert_eq!(cached(&umiak, &dir, &[]).0, 3);
    // Not at all; not what is older; without layers there are none to be taken.
    for options in [&["--no-cache"][..], &["--cache-ttl", "0"], &["--cache-ttl", "1ns"], &["--layers=false"]]
    {
        assert_eq!(cached(&umiak, &dir, options).0, 0, "{options:?}");
    }
    assert_eq!(cached(&umiak, &dir, &["--cache-ttl", "24h"]).0, 3);
    build(&umiak, &dir, &["--cache-ttl", "soon"]).exits(125).tells("soon");
    // Another line, another base.
    write(&dir, "Dockerfile", &TEXT.replace("cat", "echo x; cat"));
    assert_eq!(cached(&umiak, &dir, &[]).0, 0);
    // The image is another one when it is built anew; of the same steps it is put together as it was.
    write(&dir, "Dockerfile", TEXT);
    let (_, one) = cached(&umiak, &dir, &[]);
    let (_, two) = cached(&umiak, &dir, &[]);
    assert_eq!(sh(&umiak, &one, "cat /first"), sh(&umiak, &two, "cat /first"));
}

#[test]
fn variables_count_where_they_are_used() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let text = "FROM busybox\nRUN echo before > /before\nARG A\nARG UNUSED\nRUN echo $A > /after\nENV E=$A\n";
    let dir = context(&umiak, &[("Dockerfile", text)]);
    let with = |value: &str| cached(&umiak, &dir, &["--build-arg", value]).0;
    assert_eq!(with("A=1"), 0);
    assert_eq!(with("A=1"), 2);
    assert_eq!(with("A=2"), 1);
    assert_eq!(sh(&umiak, "made", "cat /after; echo $E; echo ${A-none}"), "2\n2\nnone");
    // As it is for the environment of those who run.
    umiak.run(&["builder", "prune", "-af"]).ok();
    assert_eq!(with("A=2"), 0);
    let file = umiak.file("args", "# of a file\nA=3\n");
    build(&umiak, &dir, &["-q", "-t", "made", "--build-arg-file", file.to_str().unwrap()]).ok();
    assert_eq!(sh(&umiak, "made", "cat /after"), "3");
    build(
        &umiak,
        &dir,
        &["-q", "-t", "made", "--build-arg-file", file.to_str().unwrap(), "--build-arg", "A=4"],
    )
    .ok();
    assert_eq!(sh(&umiak, "made", "cat /after"), "4");
    // One that nobody declares is told, and does no harm.
    let told = build(&umiak, &dir, &["-q", "--build-arg", "UNKNOWN=1"]).ok();
    assert!(told.stderr.contains("UNKNOWN"), "{}", told.stderr);
}

#[test]
fn what_is_kept_is_counted_and_goes() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let text = "FROM busybox\nRUN --mount=type=cache,target=/c dd if=/dev/zero of=/x bs=1000 count=300 2>/dev/null; echo kept >> /c/y\n";
    let dir = context(&umiak, &[("Dockerfile", text)]);
    let (_, id) = cached(&umiak, &dir, &[]);
    let row =
        || umiak.run(&["system", "df", "--format", "{{.Type}} {{.Total}} {{.Reclaimable}}"]).ok().stdout;
    let of_cache =
        |text: String| text.lines().find(|line| line.starts_with("Build Cache")).unwrap().to_owned();
    // Its layer is the image's: only what is mounted would be had back.
    assert_eq!(of_cache(row()), "Build Cache 2 5 B (0%)");
    umiak.run(&["system", "df", "-v"]).ok().has("RUN --mount=type=cache,target=/c dd");
    umiak.run(&["builder", "prune", "-f", "--filter", "until=24h"]).ok().says("Total reclaimed space: 0 B");
    umiak.run(&["builder", "prune", "-f", "--filter", "label=x"]).exits(125).tells("label=x");
    umiak.run(&["system", "prune", "-f", "--build", "--filter", "label=x"]).exits(125).tells("--build");
    // Without an answer nothing goes.
    umiak.run(&["builder", "prune"]).ok().says("");
    umiak
        .run(&["buildx", "prune", "-f"])
        .ok()
        .has("RUN --mount=type=cache")
        .has("Total reclaimed space: 5 B");
    assert_eq!(cached(&umiak, &dir, &[]).0, 1);
    // Of an image that is gone the step is kept, until it is said otherwise.
    umiak.run(&["rmi", "-f", &id]).ok();
    assert_eq!(cached(&umiak, &dir, &[]).0, 1);
    umiak.run(&["rmi", "-f", "made"]).ok();
    assert!(of_cache(row()).contains("Build Cache 1 300"), "{}", row());
    umiak.run(&["builder", "prune", "-f"]).ok().has("Total reclaimed space: 300");
    assert_eq!(of_cache(row()), "Build Cache 0 0 B (0%)");
    assert_eq!(cached(&umiak, &dir, &[]).0, 0);
    umiak.run(&["system", "prune", "-af", "--build"]).ok().has("Deleted build cache objects");
    assert_eq!(of_cache(row()), "Build Cache 0 0 B (0%)");
    umiak.run(&["system", "check"]).ok().says("");
    umiak.run(&["image", "prune", "-f", "--build-cache"]).ok().says("");
}
