//! Files at addresses that are no registry's: signatures, beside the images that they speak of.

use ureq::http::{Method, StatusCode, Uri};

use super::client::{Ask, Registry};
use super::{Error, Options};
use crate::image::reference::Reference;

/// Gets a short file by its address, without credentials; `None` if there is none.
pub fn fetch(url: &str) -> Result<Option<Vec<u8>>, Error> {
    let wrong = || Error::NoRegistry(url.to_owned());
    let address: Uri = url.parse().map_err(|_| wrong())?;
    let host = address.authority().ok_or_else(wrong)?.as_str();
    let reference: Reference = format!("{host}/file").parse().map_err(|_| wrong())?;
    let server = Registry::new(&reference, &Options::default())?;
    let mut response = server.ask(Ask::new(Method::GET, url, url))?;
    match response.status() {
        StatusCode::NOT_FOUND => Ok(None),
        status if status.is_success() => server.read(&mut response).map(Some),
        _ => Err(server.failed(response, url)),
    }
}
