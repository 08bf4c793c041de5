//! A program's streams, and who keeps what it writes.

use std::io;
use std::os::fd::OwnedFd;

use super::Job;
use super::journal::{self, JournalWriter};
use super::log::{Keeper, LogWriter};
use super::supervise::Streams;
use crate::base::template::Template;
use crate::runtime::Stdio;
use crate::storage::containers::{ContainerConfig, ContainerRecord, LogDriver};

/// Who keeps the output; none if nobody does.
pub(super) fn open_log(job: &Job) -> io::Result<Option<Keeper>> {
    let config = &job.record.config.log;
    match config.driver {
        LogDriver::K8sFile | LogDriver::JsonFile => {
            let path = job.containers.log_path(&job.record);
            let log = LogWriter::open(&path, config.size_max, config.file_max.unwrap_or(1))?;
            Ok(Some(Keeper::File(log)))
        }
        LogDriver::Journald => {
            let socket = journal::connect(journal::SOCKET.as_ref())?;
            let tag = config.tag.as_deref().map(|tag| render(tag, &job.record)).transpose()?;
            let tag = tag.unwrap_or_default();
            Ok(Some(Keeper::Journal(JournalWriter::new(socket, &job.record, &tag))))
        }
        LogDriver::Passthrough | LogDriver::None => Ok(None),
    }
}

/// A tag, with the names that Docker and Podman have for what can be in it.
fn render(tag: &str, record: &ContainerRecord) -> io::Result<String> {
    let image = record.image_id.map(|id| id.hex()).unwrap_or_default();
    let data = serde_json::json!({
        "ID": record.id.short(),
        "Id": record.id,
        "FullID": record.id,
        "Name": record.name,
        "ImageName": record.image_name(),
        "ImageID": image.get(..12).unwrap_or_default(),
        "ImageFullID": image,
        "Image": image,
    });
    Template::parse(tag).and_then(|template| template.render(&data)).map_err(io::Error::other)
}

/// The command's streams for the program. Kept for a further run.
pub(super) fn pass([stdin, stdout, stderr]: &[OwnedFd; 3]) -> io::Result<Stdio> {
    Ok(Stdio::Fds { stdin: stdin.try_clone()?, stdout: stdout.try_clone()?, stderr: stderr.try_clone()? })
}

/// The program's ends of its streams, and ours.
pub(super) fn streams(config: &ContainerConfig, stdin: Option<OwnedFd>) -> io::Result<(Stdio, Streams)> {
    if config.tty {
        return Ok((Stdio::Terminal, Streams::default()));
    }
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (stdout_read, stdout) = pipe()?;
    let (stderr_read, stderr) = pipe()?;
    let mut streams = Streams { stdout: Some(stdout_read), stderr: Some(stderr_read), ..Streams::default() };
    let stdin = match stdin {
        Some(read) => read,
        None if config.interactive => {
            let (read, write) = pipe()?;
            streams.stdin = Some(write);
            read
        }
        None => std::fs::File::open("/dev/null")?.into(),
    };
    Ok((Stdio::Fds { stdin, stdout, stderr }, streams))
}
