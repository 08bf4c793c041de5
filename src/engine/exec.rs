//! A further program in a running container.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::attach::{DetachKeys, RawTerminal, terminal_size, write_all};
use super::{Engine, Error, environment, specgen};
use crate::monitor::answers;
use crate::runtime::{self, ExecRequest, Executed, Stdio};
use crate::storage::containers::{ContainerRecord, RunState, Status};
use crate::storage::events::Event;
use crate::sys::process;
use crate::sys::signal::read_signal;

/// The flags of `exec`.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the names are those of the flags")]
pub struct ExecOptions {
    pub container: String,
    pub command: Vec<String>,
    pub detach: bool,
    pub interactive: bool,
    pub tty: bool,
    pub env: Vec<String>,
    pub env_files: Vec<PathBuf>,
    pub user: Option<String>,
    pub workdir: Option<String>,
    pub detach_keys: DetachKeys,
    pub privileged: bool,
    pub preserve: Vec<u32>,
}

impl Engine {
    /// Runs a program in a container; its exit code, or `None` if it was left running.
    pub fn exec(&self, options: &ExecOptions) -> Result<Option<u8>, Error> {
        let (record, status) = self.lookup(&options.container)?;
        let Status::Running(state) = &status else {
            if let Status::Paused(_) = status {
                // The program would stand still like all others before it has begun.
                return Err(Error::Paused(record.name));
            }
            return Err(Error::NotRunning { name: record.name, status: status.word() });
        };
        let host: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let env = environment::exec_environment(
            &record.config.env,
            &options.env,
            &options.env_files,
            &host,
            options.tty,
        )?;
        let user = options.user.clone().unwrap_or_else(|| record.config.user.clone());
        let config = &record.config;
        let mut process = specgen::process(config, options.command.clone(), env, options.tty, &user)?;
        if options.privileged {
            process.set_capabilities(Some(specgen::all_capabilities(record.mapping.is_none())));
        }
        if let Some(dir) = &options.workdir {
            process.set_cwd(dir.clone().into());
        }
        let stdio = stdio(options).map_err(Error::Socket)?;
        let mut request = self.exec_request(&record, state, process, user, stdio)?;
        request.preserve_list = options.preserve.clone();
        if options.user.is_some() {
            request.groups_by_name = Vec::new();
        }
        let signals = (!options.detach).then(|| super::attach::catch_signals(true)).transpose();
        let signals = signals.map_err(Error::Relay)?;
        let executed = runtime::exec(request)
            .map_err(|source| Error::Exec { container: record.name.clone(), source })?;
        self.note(Event::container("exec", &record));
        let Some(signals) = signals else { return Ok(None) };
        let code = match executed.terminal {
            Some(_) => relay_terminal(executed, options, &signals),
            None => wait_forwarding(&executed, &signals),
        };
        let code = code.map_err(Error::Relay)?;
        if let Some(code) = code {
            self.note(Event { exit_code: Some(code.into()), ..Event::container("exec_died", &record) });
        }
        Ok(code)
    }

    /// Who answers a running container's system calls, if somebody does.
    fn answerer(&self, record: &ContainerRecord) -> Result<Option<OwnedFd>, Error> {
        answers::of_running(record, &self.containers.run_dir(&record.id))
            .map_err(|source| Error::Answers { name: record.name.clone(), source })
    }

    /// Starts a health check's command in a container; its pidfd.
    pub(super) fn check_health(
        &self,
        record: &ContainerRecord,
        state: &RunState,
        words: Vec<String>,
        stdio: Stdio,
    ) -> Result<OwnedFd, Error> {
        let env = record.config.env.clone();
        let user = record.config.user.clone();
        let process = specgen::process(&record.config, words, env, false, &user)?;
        let request = self.exec_request(record, state, process, user, stdio)?;
        let executed = runtime::exec(request)
            .map_err(|source| Error::Exec { container: record.name.clone(), source })?;
        Ok(executed.pidfd)
    }

    /// The runtime's request for a further process of a container.
    fn exec_request(
        &self,
        record: &ContainerRecord,
        state: &RunState,
        process: oci_spec::runtime::Process,
        user: String,
        stdio: Stdio,
    ) -> Result<ExecRequest, Error> {
        let seccomp = self.seccomp(record)?;
        Ok(ExecRequest {
            pid: state.pid,
            start_time: state.start_time,
            process,
            user_by_name: Some(user),
            stdio,
            cgroup: state.cgroup.clone(),
            pidfd: None,
            own_namespaces: specgen::own_kinds(record),
            seccomp: seccomp.profile,
            filter: seccomp.filter,
            answerer: self.answerer(record)?,
            preserve_fds: 0,
            preserve_list: Vec::new(),
            groups_by_name: record.config.who.groups.clone(),
            keep_groups: record.config.who.keep_groups,
            no_new_keyring: false,
            clamp_limits: false,
            state: None,
            personality: specgen::personality(&record.config),
            memory_policy: None,
        })
    }
}

/// Without a terminal the program simply gets our own streams: nothing is copied.
fn stdio(options: &ExecOptions) -> std::io::Result<Stdio> {
    let null = |write: bool| -> std::io::Result<OwnedFd> {
        Ok(std::fs::OpenOptions::new().read(!write).write(write).open("/dev/null")?.into())
    };
    if options.tty && !options.detach {
        return Ok(Stdio::Terminal);
    }
    let dup = |fd| rustix::io::fcntl_dupfd_cloexec(fd, 3);
    if options.detach {
        return Ok(Stdio::Fds { stdin: null(false)?, stdout: null(true)?, stderr: null(true)? });
    }
    let stdin = if options.interactive { dup(rustix::stdio::stdin())? } else { null(false)? };
    Ok(Stdio::Fds { stdin, stdout: dup(rustix::stdio::stdout())?, stderr: dup(rustix::stdio::stderr())? })
}

fn wait_forwarding(executed: &Executed, signals: &OwnedFd) -> std::io::Result<Option<u8>> {
    loop {
        let mut fds = [PollFd::new(&executed.pidfd, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        if !fds[0].revents().is_empty() {
            return Ok(Some(process::wait(executed.pidfd.as_fd())?.code()));
        }
        if let Some(signal) = read_signal(signals)?
            && signal != libc::SIGWINCH
        {
            let _ = process::pidfd_signal(executed.pidfd.as_fd(), signal);
        }
    }
}

/// Copies between our terminal and the program's until it has ended or the user leaves.
fn relay_terminal(
    mut executed: Executed,
    options: &ExecOptions,
    signals: &OwnedFd,
) -> std::io::Result<Option<u8>> {
    let Some(master) = executed.terminal.take() else { return wait_forwarding(&executed, signals) };
    let resize = || {
        if let Some((ws_row, ws_col)) = terminal_size() {
            let size = rustix::termios::Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = rustix::termios::tcsetwinsize(&master, size);
        }
    };
    resize();
    let stdin = rustix::stdio::stdin();
    let _raw = if options.interactive { RawTerminal::enter(stdin)? } else { None };
    let mut filter = super::attach::KeyFilter::new(&options.detach_keys);
    let mut reading = options.interactive;
    let mut open = true;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let mut fds = vec![PollFd::new(&executed.pidfd, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if open {
            fds.push(PollFd::new(&master, PollFlags::IN));
        }
        if reading {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let input_ready = reading && ready[ready.len() - 1];
        if ready[1] {
            match read_signal(signals)? {
                Some(libc::SIGWINCH) => resize(),
                Some(signal) => drop(process::pidfd_signal(executed.pidfd.as_fd(), signal)),
                None => {}
            }
        }
        if open && ready[2] {
            match rustix::io::read(&master, &mut *buffer) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                Ok(0) | Err(_) => open = false,
                Ok(length) => write_all(rustix::stdio::stdout(), &buffer[..length])?,
            }
        } else if ready[0] {
            // All that was written has been read.
            return Ok(Some(process::wait(executed.pidfd.as_fd())?.code()));
        }
        if input_ready {
            match rustix::io::read(stdin, &mut *buffer) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                Ok(0) | Err(_) => {
                    reading = false;
                    let _ = write_all(master.as_fd(), &[4]);
                }
                Ok(length) => {
                    let (bytes, leave) = filter.accept(&buffer[..length]);
                    let _ = write_all(master.as_fd(), &bytes);
                    if leave {
                        return Ok(None);
                    }
                }
            }
        }
    }
}
