//! Files at addresses that are no registry's: signatures, beside the images that they speak of, and archives that
//! become images.

use std::io::{self, Read};

use ureq::Body;
use ureq::http::{Method, Response, StatusCode, Uri};

use super::client::{Ask, Registry};
use super::{Error, Options};
use crate::image::reference::Reference;

/// Whether this is an address, and no path.
pub fn is_address(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Gets a short file by its address, without credentials; `None` if there is none.
pub fn fetch(url: &str) -> Result<Option<Vec<u8>>, Error> {
    let (server, mut response) = ask(url)?;
    match response.status() {
        StatusCode::NOT_FOUND => Ok(None),
        status if status.is_success() => server.read(&mut response).map(Some),
        _ => Err(server.failed(response, url)),
    }
}

fn ask(url: &str) -> Result<(Registry, Response<Body>), Error> {
    let wrong = || Error::NoRegistry(url.to_owned());
    let address: Uri = url.parse().map_err(|_| wrong())?;
    let host = address.authority().ok_or_else(wrong)?.as_str();
    let reference: Reference = format!("{host}/file").parse().map_err(|_| wrong())?;
    let server = Registry::new(&reference, &Options::default())?;
    let response = server.ask(Ask::new(Method::GET, url, url))?;
    Ok((server, response))
}

/// What a server says of a file beside its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// `Content-Disposition`, as it is written.
    pub disposition: Option<String>,
    /// `Last-Modified`, as it is written.
    pub modified: Option<String>,
}

/// A file of any size, which is asked for when it is read first.
pub struct Download {
    url: String,
    body: Option<Box<dyn Read + Send>>,
    said: Said,
}

impl Download {
    /// Of this address.
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), body: None, said: Said::default() }
    }

    /// What the server said, once something was read.
    pub fn said(&self) -> &Said {
        &self.said
    }

    fn open(&mut self) -> Result<Box<dyn Read + Send>, Error> {
        let (server, response) = ask(&self.url)?;
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        self.said = Said { disposition: header("content-disposition"), modified: header("last-modified") };
        match response.status().is_success() {
            true => Ok(Box::new(response.into_body().into_reader())),
            false => Err(server.failed(response, &self.url)),
        }
    }
}

impl Read for Download {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.body.is_none() {
            self.body = Some(self.open().map_err(io::Error::other)?);
        }
        self.body.as_mut().map_or(Ok(0), |body| body.read(into))
    }
}
