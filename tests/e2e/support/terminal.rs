//! A command on a pseudo-terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::Umiak;

/// The person's side of a terminal that a command runs on.
pub struct Terminal {
    master: File,
    child: Child,
    incoming: Receiver<Vec<u8>>,
    /// Everything that was shown so far.
    pub shown: String,
    seen: usize,
}

impl Terminal {
    /// Works with a shell as a person does: a terminal of the container's own, another size, ^C; ends it with 7.
    pub fn use_shell(mut self) {
        self.send(b"tty; echo rea''dy\n");
        self.expect("/dev/pts/0");
        self.expect("ready");
        self.resize(132, 50);
        self.send(b"until [ \"$(stty size)\" = '50 132' ]; do :; done; echo size' 'is right\n");
        self.expect("size is right");
        // ^C reaches the foreground process, not the engine.
        // The mark is printed by the program: from then on the shell does not read the line itself.
        self.send(b"sh -c \"echo sle''eping; sleep 1000\"\n");
        self.expect("sleeping");
        self.send(b"\x03");
        self.send(b"echo inter''rupted $?\n");
        self.expect("interrupted 130");
        self.send(b"exit 7\n");
        assert_eq!(self.wait().0, Some(7));
    }

    /// Starts a command on a terminal of 80 columns and 24 rows.
    pub fn start(umiak: &Umiak, args: &[&str]) -> Self {
        Self::start_command(umiak.command(args))
    }

    /// The same for the OCI runtime's face.
    pub fn start_runtime(umiak: &Umiak, args: &[&str]) -> Self {
        let mut command = Command::new(Umiak::binary());
        command.arg("runtime").args(args).current_dir(&umiak.dir);
        Self::start_command(command)
    }

    /// The same for any program.
    #[allow(unsafe_code)]
    pub fn start_command(mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = File::options().read(true).write(true).open(name).unwrap();
        tcsetwinsize(&master, size(80, 24)).unwrap();
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        // SAFETY: between fork and exec only the system calls setsid and ioctl are made.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        drop(command);
        let master = File::from(master);
        let mut reader = master.try_clone().unwrap();
        let (sender, incoming) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO: the last process left the terminal.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { master, child, incoming, shown: String::new(), seen: 0 }
    }

    /// Types.
    pub fn send(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).unwrap();
    }

    /// Waits until `text` is shown, behind what was waited for before.
    pub fn expect(&mut self, text: &str) {
        loop {
            if let Some(at) = self.shown[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            match self.incoming.recv_timeout(Duration::from_secs(180)) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout) => panic!("{text:?} was never shown, only: {:?}", self.shown),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("ended without {text:?}, only: {:?}", self.shown)
                }
            }
        }
    }

    /// Changes the window's size.
    pub fn resize(&self, columns: u16, rows: u16) {
        tcsetwinsize(&self.master, size(columns, rows)).unwrap();
    }

    /// Waits for the end; the terminal stays.
    pub fn ended(&mut self) -> bool {
        self.child.wait().is_ok()
    }

    /// The terminal's modes as the command left them.
    pub fn local_modes(&self) -> LocalModes {
        tcgetattr(&self.master).unwrap().local_modes
    }

    /// Waits for the end and returns the exit code.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        while let Ok(bytes) = self.incoming.recv_timeout(Duration::from_secs(1)) {
            self.shown.push_str(&String::from_utf8_lossy(&bytes));
        }
        (code, self.shown)
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }
}
