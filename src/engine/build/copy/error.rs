//! What can be wrong with a copy.

use std::io;
use std::path::PathBuf;

use crate::base::digest::Digest;
use crate::image::archive;
use crate::image::dockerfile::glob::GlobError;
use crate::image::dockerfile::ignore::IgnoreError;
use crate::security::passwd;

/// Nothing is copied. Which line of the Dockerfile it is about is added by who has it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source is not there.
    #[error("\"{pattern}\" is not in {place}")]
    NoSource {
        /// As written.
        pattern: String,
        /// As "the build context".
        place: &'static str,
    },
    /// The source is there, but left out.
    #[error("\"{pattern}\" is left out of the build context by its ignore file")]
    Ignored {
        /// As written.
        pattern: String,
    },
    /// The sources are patterns that nothing matches.
    #[error("nothing in {place} matches {patterns}")]
    NoMatch {
        /// As written.
        patterns: String,
        /// As "the build context".
        place: &'static str,
        /// Something matches that is left out.
        ignored: bool,
    },
    /// There is no context.
    #[error("copying \"{0}\": there is no build context, only a Dockerfile")]
    NoContext(String),
    /// A pattern that is none.
    #[error("\"{pattern}\" is not a pattern")]
    Pattern {
        /// As written.
        pattern: String,
        /// Why.
        #[source]
        source: GlobError,
    },
    /// A pattern of `--exclude` that is none.
    #[error("--exclude")]
    Exclude(#[source] IgnoreError),
    /// Several files for one name.
    #[error("copying {count} files to \"{destination}\", which is not a directory")]
    Several {
        /// How many.
        count: usize,
        /// As written.
        destination: String,
    },
    /// A directory where a file is.
    #[error("copying the directory \"{from}\" to \"{to}\", which is {what} in the image")]
    NoDirectory {
        /// In its place.
        from: String,
        /// In the image.
        to: String,
        /// What is there: `a file`, `a link to "x"`.
        what: String,
    },
    /// A file where a directory is.
    #[error("copying the file \"{from}\" to \"{to}\", which is a directory in the image")]
    IsDirectory {
        /// In its place.
        from: String,
        /// In the image.
        to: String,
    },
    /// Something on the way to the destination is no directory.
    #[error("copying to \"{to}\": \"{at}\" is not a directory in the image")]
    InTheWay {
        /// The destination.
        to: String,
        /// Where a file is.
        at: String,
    },
    /// Links lead in a circle.
    #[error("following \"{0}\": too many links")]
    Loop(String),
    /// What a pattern matches is a link to nothing.
    #[error("copying the link \"{0}\": it leads to nothing that is there")]
    Dangling(String),
    /// Directories in directories in directories.
    #[error("copying \"{0}\": directories are nested too deeply")]
    TooDeep(String),
    /// The name of a file means something else in a layer.
    #[error("copying \"{0}\": in a layer a name that begins with .wh. says that another file is gone")]
    Whiteout(String),
    /// A file was another when it was read again, or while it was read.
    #[error("\"{0}\" changes while it is copied")]
    Changed(String),
    /// Some file was another when it was read again.
    #[error("files change while they are copied")]
    AnyChanged,
    /// A file cannot be read.
    #[error("reading \"{}\" in {place}", path.display())]
    Read {
        /// Below its root.
        path: PathBuf,
        /// As "the build context".
        place: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The image's own files cannot be read.
    #[error("looking at \"{}\" in the image", path.display())]
    Image {
        /// Below its root.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be written.
    #[error("writing the layer's archive")]
    Write(#[source] io::Error),
    /// `--chown` names nobody.
    #[error("--chown={text}")]
    Owner {
        /// As written.
        text: String,
        /// Who.
        #[source]
        source: passwd::LookupError,
    },
    /// `--chmod` says nothing.
    #[error("--chmod={0}: write an octal mode such as 0755, or changes such as u=rwX,go=rX")]
    Mode(String),
    /// An archive to unpack is damaged.
    #[error("unpacking \"{name}\"")]
    Archive {
        /// The archive.
        name: String,
        /// Why.
        #[source]
        source: archive::Error,
    },
    /// An archive names something outside, or a hard link to what is not in it.
    #[error("unpacking \"{name}\": it has the hostile name \"{entry}\"")]
    Hostile {
        /// The archive.
        name: String,
        /// The entry.
        entry: String,
    },
    /// A hard link in an archive to what was not in it before.
    #[error("unpacking \"{name}\": \"{entry}\" is a hard link to \"{target}\", which is not in it")]
    NoTarget {
        /// The archive.
        name: String,
        /// The entry.
        entry: String,
        /// Its target.
        target: String,
    },
    /// Compressed in a way that we cannot undo.
    #[error("unpacking \"{name}\": archives compressed with {how} are not supported yet")]
    Compression {
        /// The archive.
        name: String,
        /// `bzip2`, `xz`.
        how: &'static str,
    },
    /// A source that is no path and is not fetched.
    #[error("\"{0}\": adding a Git repository is not supported yet")]
    Git(String),
    /// An address was not fetched before.
    #[error("\"{0}\" was not fetched")]
    NotFetched(String),
    /// Its name cannot be told.
    #[error("\"{0}\" tells no name for the file: name it in the destination, without a slash at its end")]
    NoName(String),
    /// What came has another checksum.
    #[error("\"{url}\" has the digest {found}, --checksum says {expected}")]
    Checksum {
        /// What was fetched, or read.
        url: String,
        /// What `--checksum` says.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A checksum that is none.
    #[error("--checksum={0}: write sha256: and 64 hexadecimal digits")]
    NoChecksum(String),
    /// It cannot be fetched.
    #[error("fetching \"{url}\": {message}")]
    Fetch {
        /// Where from.
        url: String,
        /// The chain of errors.
        message: String,
    },
    /// A flag that means nothing here.
    #[error("{flag} is only for {only}")]
    Flag {
        /// As written.
        flag: &'static str,
        /// As "ADD of addresses".
        only: &'static str,
    },
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Several { destination, .. } => {
                format!("a slash at its end makes it one: \"{destination}/\"")
            }
            Self::NoDirectory { what, .. } if what.starts_with("a link") => {
                "name the directory that the link leads to in the place of the link".to_owned()
            }
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "an ignore file (.containerignore) leaves out what the build does not need".to_owned()
            }
            Self::Compression { .. } => {
                "COPY, and ADD --unpack=false, copy it as it is; gzip and zstd are unpacked".to_owned()
            }
            Self::Git(_) => "clone it into the build context, and COPY it".to_owned(),
            Self::Ignored { .. } | Self::NoMatch { ignored: true, .. } => {
                "an exception in the ignore file brings it back: a line with ! and its path".to_owned()
            }
            Self::Changed(_) | Self::AnyChanged => "build again once nothing writes to them".to_owned(),
            _ => return None,
        })
    }
}
