//! Reading from a registry: manifests, and blobs that are taken up where they were cut.

use std::io::{self, Read};

use ureq::http::StatusCode;

use super::Error;
use super::client::{Registry, header};
use crate::base::digest::Digest;
use crate::image::Transport;
use crate::image::manifest::{ACCEPT, Descriptor};
use crate::image::source::{self, Fetched, Source};

impl Registry {
    fn fetch_manifest(&self, selector: &str) -> Result<Fetched, Error> {
        let name = self.asked().to_string();
        let accept = ACCEPT.map(|kind| ("Accept", kind));
        let mut response = self.get(&format!("manifests/{selector}"), &name, &accept)?;
        let media_type =
            header(&response, "content-type").map(|t| t.split(';').next().unwrap_or(t).trim().to_owned());
        let bytes = self.read(&mut response)?;
        Ok(Fetched { bytes, media_type })
    }
}

impl Source for Registry {
    fn root(&self) -> Result<Fetched, source::Error> {
        let fetched = self.fetch_manifest(&self.asked().selector())?;
        if let Some(expected) = self.reference().digest() {
            let found = Digest::of(&fetched.bytes);
            if found != expected {
                return Err(source::Error::Digest { expected, found });
            }
        }
        Ok(fetched)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Fetched, source::Error> {
        Ok(self.fetch_manifest(&descriptor.digest.to_string())?)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>, source::Error> {
        let mut blob = Blob {
            registry: self,
            descriptor: descriptor.clone(),
            at: 0,
            body: None,
            failures: 0,
            failed_at: 0,
        };
        blob.connect()?;
        Ok(Box::new(blob))
    }

    fn blob_range(
        &self,
        blob: &Descriptor,
        offset: u64,
        length: u64,
    ) -> Result<Option<Box<dyn Read + Send + '_>>, source::Error> {
        let Some(last) = offset.checked_add(length).and_then(|end| end.checked_sub(1)) else {
            return Ok(None);
        };
        let path = format!("blobs/{}", blob.digest);
        let response = self.get(&path, &path, &[("Range", &format!("bytes={offset}-{last}"))])?;
        let given = header(&response, "content-range").and_then(|range| range.strip_prefix("bytes "));
        let asked = given.is_some_and(|range| range.starts_with(&format!("{offset}-{last}/")));
        if response.status() != StatusCode::PARTIAL_CONTENT || !asked {
            return Ok(None);
        }
        Ok(Some(Box::new(response.into_body().into_with_config().limit(u64::MAX).reader().take(length))))
    }

    fn names(&self) -> Vec<String> {
        self.reference().tagged().into_iter().collect()
    }

    fn repository(&self) -> Option<String> {
        Some(self.reference().name())
    }

    fn transport(&self) -> Option<Transport> {
        Some(Transport::Registry(self.reference().clone()))
    }
}

/// A blob's download, taken up again where it was cut.
struct Blob<'a> {
    registry: &'a Registry,
    descriptor: Descriptor,
    at: u64,
    body: Option<ureq::BodyReader<'static>>,
    failures: u32,
    /// Where the first of these failures was.
    failed_at: u64,
}

/// After so many bytes the line is good again, and failures are counted anew: else a server that
/// sends a byte at a time would be asked for ever.
const GOOD: u64 = 1 << 20;

impl Blob<'_> {
    fn connect(&mut self) -> Result<(), Error> {
        let path = format!("blobs/{}", self.descriptor.digest);
        let range = format!("bytes={}-", self.at);
        let headers = [("Range", range.as_str())];
        let headers = if self.at > 0 { &headers[..] } else { &[] };
        let response = self.registry.get(&path, &path, headers)?;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let from = header(&response, "content-range")
            .and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
        // Limits of whole reads do not apply to a stream; the manifest's size does.
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        if self.at > 0 && !(partial && from == Some(self.at)) {
            // The server sends all again: pass over what is here.
            let passed = io::copy(&mut body.by_ref().take(self.at), &mut io::sink()).unwrap_or_default();
            if passed < self.at {
                return Ok(());
            }
        }
        self.body = Some(body);
        Ok(())
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let result = match &mut self.body {
                Some(body) => body.read(into),
                None => Err(io::ErrorKind::ConnectionReset.into()),
            };
            let cut = match result {
                Ok(0) if self.at < self.descriptor.size && !into.is_empty() => {
                    io::Error::from(io::ErrorKind::UnexpectedEof)
                }
                Ok(count) => {
                    self.at += count as u64;
                    if self.at - self.failed_at >= GOOD {
                        (self.failures, self.failed_at) = (0, self.at);
                    }
                    return Ok(count);
                }
                Err(error) => error,
            };
            self.body = None;
            self.failures += 1;
            // A server that always sends a part and stops has the wrong size, not a bad line.
            if self.failures >= self.registry.attempts()
                || (cut.kind() == io::ErrorKind::UnexpectedEof && self.failures > 1)
            {
                if cut.kind() == io::ErrorKind::UnexpectedEof {
                    return Ok(0);
                }
                let text = format!("the connection was cut {} times, at last: {cut}", self.failures);
                return Err(io::Error::new(cut.kind(), text));
            }
            self.registry.pause(self.failures - 1, None);
            match self.connect() {
                // The rest of a blob that is shorter than the manifest says: no such range.
                Err(Error::Status { .. }) => return Ok(0),
                Err(error) => return Err(io::Error::other(crate::base::report::chain(&error))),
                Ok(()) => {}
            }
        }
    }
}
