//! Everything that reads what others wrote, with thousands of changes to good examples: it may refuse,
//! it must not panic, hang or eat memory. The changes are the same at every run.

use std::io::Cursor;
use std::path::Path;

use umiak::image::archive::Reader;
use umiak::image::dockerfile::{self, glob::Glob, ignore::Ignore};
use umiak::image::manifest::{Config, Document};
use umiak::image::trust::{Lookaside, Policy, openpgp, payload, sigstore, yaml};
use umiak::image::{Reference, Registries, Transport, chunked};

use crate::support::{Archive, Image, Scratch, failure, pull_text};

/// A generator of numbers (Knuth's MMIX).
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % below.max(1)
    }

    /// Changes a text a little, in one to four places.
    fn change(&mut self, bytes: &mut Vec<u8>, words: &[&str]) {
        for _ in 0..=self.next(4) {
            let at = self.next(bytes.len() + 1);
            let length = self.next(16).min(bytes.len() - at);
            match self.next(8) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.next(8),
                1 if at < bytes.len() => {
                    bytes[at] = [0, 0xff, b'"', b'{', b'-', b'9', b'/', b'\n'][self.next(8)]
                }
                2 => drop(bytes.drain(at..at + length)),
                3 => {
                    let copy = bytes[at..at + length].to_vec();
                    let to = self.next(bytes.len() + 1);
                    bytes.splice(to..to, copy);
                }
                4 => bytes.truncate(at),
                5 => {
                    let word = words[self.next(words.len())];
                    bytes.splice(at..at + length, word.bytes());
                }
                6 => {
                    let number = ["0", "-1", "1", "18446744073709551616", "9223372036854775807", "1e999"]
                        [self.next(6)];
                    bytes.splice(at..at, number.bytes());
                }
                _ => {
                    let many = [b'[', b'{', b'a', b' ', b'/'][self.next(5)];
                    let times = self.next(300);
                    bytes.splice(at..at, std::iter::repeat_n(many, times));
                }
            }
        }
    }
}

/// Shows each of many changed examples to a reader.
fn fuzz(seed: u64, rounds: usize, examples: &[Vec<u8>], words: &[&str], mut read: impl FnMut(&[u8])) {
    let mut random = Random(seed);
    for _ in 0..rounds {
        let mut bytes = examples[random.next(examples.len())].clone();
        random.change(&mut bytes, words);
        read(&bytes);
    }
}

fn texts(examples: &[&str]) -> Vec<Vec<u8>> {
    examples.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn names() {
    let digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let examples = texts(&[
        "busybox",
        "quay.io:5000/a/b-c__d.e:tag_1.2",
        "[::1]:5000/x",
        &format!("a/b:1{digest}"),
        "oci:/a/b:c",
        "docker-archive:x.tar:y:1",
    ]);
    fuzz(1, 20_000, &examples, &[":", "@", "/", "sha256:", "docker://", "..", "é"], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(reference) = text.parse::<Reference>() {
            // What was understood is written so that it is understood as the same.
            assert_eq!(reference.to_string().parse::<Reference>().as_ref(), Ok(&reference), "{text}");
            assert!(
                !reference.repository().contains("..") && !reference.repository().starts_with('/'),
                "{text}"
            );
        }
        let _ = text.parse::<Transport>();
    });
}

#[test]
fn manifests_and_configurations() {
    let image = Image::new(&[Archive::new().file("a", b"a").bytes()]);
    let manifest = image.manifest.to_string();
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{0}","size":10,"platform":{{"os":"linux","architecture":"arm","variant":"v7"}},"annotations":{{"org.opencontainers.image.ref.name":"x"}}}}]}}"#,
        "0".repeat(64)
    );
    let words = [
        "null",
        "[]",
        "{}",
        "\"layers\":",
        "\"manifests\":[",
        "\"size\":-1",
        "\"digest\":\"sha512:\"",
        "\"fsLayers\":1",
    ];
    fuzz(2, 10_000, &texts(&[&manifest, &index]), &words, |bytes| {
        let _ = Document::parse(bytes, Some("application/json"));
        let _ = chunked::layers(bytes);
        let _ = sigstore::entries(bytes);
    });
    let config = image.blobs.last().unwrap().clone();
    fuzz(3, 10_000, &[config], &["null", "[]", "\"diff_ids\":[1]", "\"os\":1"], |bytes| {
        if let Ok(config) = Config::parse(bytes) {
            let _ = (config.diff_ids(1), config.platform());
        }
    });
}

/// An archive with everything that an archive may have.
fn archive() -> Vec<u8> {
    Archive::new()
        .dir("dir/")
        .pax(&[("path", b"a/long/name"), ("SCHILY.xattr.user.x", b"y\ny"), ("mtime", b"1.5"), ("size", b"3")])
        .file("dir/file", b"abc")
        .entry("link", b'1', "dir/file", b"")
        .entry("symbolic", b'2', "../x", b"")
        .entry(".wh.gone", b'0', "", b"")
        .entry("dir/.wh..wh..opq", b'0', "", b"")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"s"),
            ("GNU.sparse.realsize", b"9000"),
        ])
        .file("GNUSparseFile.0/s", &[b"1\n0\n3\n".as_slice(), &[0; 506], b"abc"].concat())
        .entry("fifo", b'6', "", b"")
        .bytes()
}

/// Makes a header's sum right again, so that more than the sum is looked at.
fn mend(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

#[test]
fn archives() {
    let words = ["GNU.sparse.map=", "999999999 path=", "\0\0\0\0", "7777777", "../../", "ustar"];
    let mut round = 0;
    fuzz(4, 20_000, &[archive()], &words, |bytes| {
        let mut bytes = bytes.to_vec();
        round += 1;
        if round % 4 > 0 {
            mend(&mut bytes);
        }
        let mut reader = Reader::new(&bytes[..]);
        let mut entries = 0;
        while let Ok(Some(_)) = reader.next_entry() {
            entries += 1;
            assert!(entries <= bytes.len() / 512);
        }
        let mut out = Vec::new();
        if let Ok(written) = chunked::compress(&mut Cursor::new(&bytes), &mut out) {
            assert_eq!(written.diff_id, umiak::base::digest::Digest::of(&bytes));
        }
    });
}

#[test]
fn layers_are_unpacked_or_refused() {
    // Nothing may be made outside of the store, and what is refused leaves nothing.
    let scratch = Scratch::new();
    let mut number = 0;
    fuzz(5, 300, &[archive()], &["../../../escaped", "/escaped", "..", "7777777"], |bytes| {
        let mut bytes = bytes.to_vec();
        mend(&mut bytes);
        number += 1;
        let dir = scratch.0.join(format!("layout-{number}"));
        let source = Image::new(&[bytes]).layout(&dir);
        let store = scratch.store();
        if pull_text(&store, &source).is_err() {
            assert!(!failure(&store, &source).is_empty());
        }
        assert_eq!(std::fs::read_dir(store.path("staging")).unwrap().count(), 0);
        std::fs::remove_dir_all(dir).unwrap();
    });
    let outside: Vec<_> =
        std::fs::read_dir(&scratch.0).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(outside.iter().all(|name| name == "root" || name == "run"), "{outside:?}");
}

#[test]
fn registries_conf() {
    let scratch = Scratch::new();
    let path = scratch.0.join("registries.conf");
    let text = "unqualified-search-registries = ['a.io', \"b.io:5000\"]\nshort-name-mode = 'permissive'\n[aliases]\n'x/y' = 'c.io/z'\n\
                [[registry]]\nprefix = '*.example.com'\nlocation = 'd.io/e'\ninsecure = true\nmirror-by-digest-only = false\n\
                [[registry.mirror]]\nlocation = 'm.io'\npull-from-mirror = 'tag-only'\n[[registry]]\nlocation = 'f.io'\nblocked = true\n";
    let words = ["[[registry]]", "location = ''", "= [", "prefix = '*.'", "'''", "[aliases]\n"];
    fuzz(6, 3_000, &texts(&[text]), &words, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let env = |name: &str| (name == "CONTAINERS_REGISTRIES_CONF").then(|| path.clone().into_os_string());
        let Ok(registries) = Registries::read(&env) else { return };
        for name in ["x/y", "www.example.com/a:1", "f.io/g", "d.io/e/f"] {
            let Ok(found) = registries.candidates(&name.parse().unwrap()) else { continue };
            for candidate in found {
                let _ = registries.endpoints(&candidate);
            }
        }
    });
}

#[test]
fn credentials() {
    let scratch = Scratch::new();
    let path = scratch.0.join("auth.json");
    let text = r#"{"auths":{"r.io":{"auth":"dTpw"},"r.io/a":{"identitytoken":"t"},"https://index.docker.io/v1/":{"auth":"dTpw"}}}"#;
    let words = ["null", "\"auth\":\"!\"", "\"auth\":\"dQ==\"", "{}", "[]"];
    fuzz(7, 3_000, &texts(&[text]), &words, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        for name in ["r.io/a/b:1", "docker.io/library/x"] {
            let helpers = [umiak::image::registries::AUTH_FILES.to_owned()];
            let found = umiak::image::auth::find(&name.parse().unwrap(), Some(&path), &helpers, &|_| None);
            // No secret in what is told.
            if let Err(error) = found {
                assert!(!umiak::base::report::chain(&error).contains("dTpw"), "{error}");
            }
        }
    });
}

#[test]
fn policies_and_signatures() {
    let text = r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a.io/b":[{"type":"signedBy","keyType":"GPGKeys","keyPaths":["/a","/b"],"signedIdentity":{"type":"remapIdentity","prefix":"a","signedPrefix":"b"}}],"":[{"type":"sigstoreSigned","keyData":"AAAA","signedIdentity":{"type":"exactRepository","dockerRepository":"x"}}]},"dir":{"/x":[{"type":"insecureAcceptAnything"}]}}}"#;
    let words = [
        "null",
        "[]",
        "{}",
        "\"type\":\"reject\"",
        "insecureAcceptAnything",
        "\"keyData\":\"\"",
        ",,",
        "\"default\":",
    ];
    let transports: Vec<Transport> =
        ["a.io/b/c:1", "*.x", "dir:/x/y", "oci:/x"].iter().filter_map(|text| text.parse().ok()).collect();
    fuzz(8, 10_000, &texts(&[text]), &words, |bytes| {
        let Ok(policy) = Policy::parse(Path::new("p"), bytes) else { return };
        for transport in &transports {
            assert!(!policy.requirements(transport).is_empty());
        }
    });
    let text = r#"{"critical":{"identity":{"docker-reference":"a/b:1"},"image":{"docker-manifest-digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"type":"atomic container signature"},"optional":{"creator":"x"}}"#;
    fuzz(9, 5_000, &texts(&[text]), &["null", "\"critical\":{", "\"type\":", "}}"], |bytes| {
        let _ = payload::Payload::parse(payload::Kind::Simple, bytes);
    });
    let text = "docker:\n  localhost:5000/x:\n    lookaside: https://x # y\n    use-sigstore-attachments: true\ndefault-docker:\n  sigstore: 'file:///x'\n";
    fuzz(10, 10_000, &texts(&[text]), &["\n", ": ", "  ", "- a", "\"", "{}", "#", "\t"], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = yaml::parse(&text);
        let _ = Lookaside::default().merge(Path::new("a.yaml"), &text);
    });
    // Lengths and tags of OpenPGP packets, and keys in PEM.
    let packets: Vec<u8> = vec![
        0x99, 0, 10, 4, 0, 0, 0, 0, 1, 0, 1, 1, 0, 0xb4, 1, b'x', 0x89, 0, 12, 4, 0x13, 1, 8, 0, 2, 1, 2, 0,
        0, 0, 0, 0xcb, 0xe1, 1, 2, 0, 0xa3, 1, 0x78, 0x9c,
    ];
    let armoured = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQAKBAAAAAABAAEBALQBeA==\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n".to_vec();
    fuzz(11, 50_000, &[packets, armoured], &["\u{80}\u{ff}", "-----", "=", "\0\0\0\0"], |bytes| {
        let ring = openpgp::Keyring::parse(bytes).unwrap_or_default();
        assert!(openpgp::verify(bytes, &[ring], 1_800_000_000).is_err());
    });
    let pem = b"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n"
        .to_vec();
    fuzz(12, 10_000, &[pem], &["MFkw", "\n", "=", "-----"], |bytes| drop(sigstore::Key::parse(bytes)));
}

#[test]
fn dockerfiles() {
    let texts = texts(&[
        "# escape=`\nARG A=b\nFROM --platform=$P ${A:-x} AS one\nRUN a `\n # c\n\n && b\nFROM one\nCMD [\"a\", \"b\"]\n",
        "FROM a\nRUN --mount=type=cache,target=/x,id=${A} --network=none <<EOF\na\nEOF\nCOPY <<-\"X\" <<Y b /c\n\td\n\tX\ne $A \\$\nY\n",
        "FROM a\nENV A=${B:-'c'} D=\"${E##*/}\" F=${G//a?b/\\/}\nLABEL a b\nEXPOSE 80/udp $P\nSTOPSIGNAL ${S%x}\nVOLUME [\"/a\"]\n",
        "FROM a\nHEALTHCHECK --interval=3s --retries=2 CMD [\"x\"]\nONBUILD COPY --from=x --exclude=*.o a b c/\nSHELL [\"a\"]\nARG A B=c\n",
    ]);
    let words = [
        "${",
        "}",
        "${A:-",
        "${A/",
        "\\\n",
        "`\n",
        "<<E",
        "<<-'E F'\n",
        "\nE\n",
        "--",
        "--mount=",
        ",",
        "\"",
        "'",
        "\\",
        "$",
        "FROM a\n",
        "ONBUILD ",
        "[\"",
        "\u{feff}",
        "é",
        "# escape=`\n",
        "$((",
    ];
    let value = |name: &str| match name.len() % 3 {
        0 => None,
        1 => Some(format!("{name}/*é ")),
        _ => Some(String::new()),
    };
    fuzz(13, 20_000, &texts, &words, |bytes| {
        let Ok(file) = dockerfile::parse(bytes) else { return };
        assert!(!file.stages.is_empty());
        for stage in &file.stages {
            let _ = dockerfile::expand_words(&stage.base, file.escape, &value);
            for step in &stage.steps {
                assert!(step.line > stage.line && !step.text.contains('\n'), "{step:?}");
                let Ok(expanded) = step.instruction.expand(file.escape, &value) else { continue };
                assert_eq!(expanded.keyword(), step.instruction.keyword());
                if let dockerfile::Instruction::OnBuild(text) = expanded {
                    // What is kept for later can be read then.
                    let later = dockerfile::parse_step(&text, file.escape);
                    assert!(later.is_ok(), "{text:?}: {later:?}");
                }
            }
        }
    });
}

#[test]
fn patterns() {
    let texts = texts(&["# a\n*.o\n!**/keep/*\n/a/../b/[^a-c]?\n\\*\n**", "a*b?c[d-f]/**/é"]);
    let words = ["**", "*", "/", "!", "[", "]", "\\", "[^", "..", "\u{ff}", "\r\n"];
    let paths = ["a", "a/b", "keep/x", "x/keep/a/b", "é/a.o", "*"];
    fuzz(14, 20_000, &texts, &words, |bytes| {
        if let Ok(ignore) = Ignore::parse(bytes) {
            for path in paths {
                if ignore.excluded(path) && ignore.excluded_with_all(path) {
                    for name in ["x", "keep", "keep/x", "a.o"] {
                        assert!(ignore.excluded(format!("{path}/{name}")), "{bytes:?}: {path}/{name}");
                    }
                }
            }
        }
        if let Ok(glob) = Glob::deep(bytes) {
            for path in paths.iter().filter(|path| glob.matches(path)) {
                assert!(
                    (0..=path.len()).all(|end| glob.may_begin(&path.as_bytes()[..end])),
                    "{bytes:?} {path}"
                );
            }
        }
    });
}
