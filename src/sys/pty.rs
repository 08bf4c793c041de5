//! Terminals of a container.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::path::Root;

/// A pair of a terminal's ends.
#[derive(Debug)]
pub struct Pty {
    /// The end that the engine keeps.
    pub master: OwnedFd,
    /// The container's end.
    pub slave: OwnedFd,
}

const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Opens a new terminal of the devpts at `/dev/pts` in `root`. That it is one is checked: an image
/// could have put anything there.
pub fn open_in(root: &Root) -> io::Result<Pty> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = root.open_in(Path::new("/dev/pts/ptmx"), flags, 0)?;
    let magic = rustix::fs::fstatfs(&master)?.f_type as u64;
    let device = rustix::fs::fstat(&master)?.st_rdev;
    if magic != DEVPTS_MAGIC || device != rustix::fs::makedev(5, 2) {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    rustix::pty::unlockpt(&master)?;
    // TIOCGPTPEER opens the very slave of this master, whatever is at its path.
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    rustix::io::fcntl_setfd(&slave, rustix::io::FdFlags::CLOEXEC)?;
    Ok(Pty { master, slave })
}

/// Sets a terminal's size in rows and columns.
pub fn set_size(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Makes `slave` the controlling terminal of the caller, who must lead a session without one.
pub fn control(slave: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(slave)?)
}

/// Sends a terminal's master over a console socket, the terminal's name as the message.
pub fn send_master(socket: impl AsFd, master: &OwnedFd) -> io::Result<()> {
    let name = format!("/dev/pts/{}", slave_number(master)?);
    super::socket::send(socket, name.as_bytes(), Some(master.as_fd()))
}

fn slave_number(master: &OwnedFd) -> io::Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int.
    if unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN as _, &raw mut number) } == 0 {
        Ok(number)
    } else {
        Err(io::Error::last_os_error())
    }
}
/// A terminal that shows nothing of what is typed but the end of the line; dropping it shows all again.
#[derive(Debug)]
pub struct HiddenInput<'a> {
    fd: BorrowedFd<'a>,
    before: rustix::termios::Termios,
}

/// Hides what is typed on a terminal: a password.
pub fn hide_input(fd: BorrowedFd<'_>) -> io::Result<HiddenInput<'_>> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let before = tcgetattr(fd)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    // What was typed ahead, and shown, is no password.
    tcsetattr(fd, OptionalActions::Flush, &hidden)?;
    Ok(HiddenInput { fd, before })
}

impl Drop for HiddenInput<'_> {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(self.fd, rustix::termios::OptionalActions::Drain, &self.before);
    }
}
