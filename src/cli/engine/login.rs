//! `login` and `logout`.

use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::{Failure, Globals, Outcome};
use crate::cli::output;
use crate::engine::login::{self, Account};
use crate::engine::{self, reach::Reach};
use crate::sys::pty;

/// Log in to a registry.
#[derive(Args, Debug, Clone)]
pub struct LoginArgs {
    /// Keep the credentials in this file
    #[arg(long, value_name = "PATH", conflicts_with = "compat_auth_file")]
    authfile: Option<PathBuf>,
    /// Take certificates from this directory
    #[arg(long, value_name = "PATH")]
    cert_dir: Option<PathBuf>,
    /// Keep the credentials in this file, in the form of Docker's config.json
    #[arg(long, value_name = "PATH")]
    compat_auth_file: Option<PathBuf>,
    /// Print who is logged in
    #[arg(long)]
    get_login: bool,
    /// Password (seen by whoever lists processes: better --password-stdin)
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Demand HTTPS and a certificate that is known
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = ArgAction::Set)]
    tls_verify: Option<bool>,
    /// User
    #[arg(short, long, value_name = "USER")]
    username: Option<String>,
    /// Say which file is written
    #[arg(short, long)]
    verbose: bool,
    /// The registry, also with a part of its names; the first to search in by default
    registry: Option<String>,
}

/// Log out of a registry.
#[derive(Args, Debug, Clone)]
pub struct LogoutArgs {
    /// Forget all credentials
    #[arg(short, long)]
    all: bool,
    /// The file that the credentials are in
    #[arg(long, value_name = "PATH", conflicts_with = "compat_auth_file")]
    authfile: Option<PathBuf>,
    /// The file that the credentials are in, in the form of Docker's config.json
    #[arg(long, value_name = "PATH")]
    compat_auth_file: Option<PathBuf>,
    /// The registry; the first to search in by default
    registry: Option<String>,
}

/// `login`.
pub fn login(args: LoginArgs, _: &Globals) -> Outcome {
    let reach = Reach {
        tls_verify: args.tls_verify,
        authfile: args.authfile.clone(),
        cert_dir: args.cert_dir.clone(),
        ..Reach::default()
    };
    // Whatever is written from here on, also by a helper, is nobody else's business.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let account = Account::new(args.registry.as_deref(), reach, args.compat_auth_file.clone())
        .map_err(engine::Error::from)?;
    let existing = account.existing().map_err(engine::Error::from)?;
    if args.get_login {
        let none = || engine::Error::from(login::Error::NotLoggedIn(account.name.clone()));
        let (user, _) = existing.ok_or_else(none)?;
        output::println(&user)?;
        return Ok(0);
    }
    if args.password_stdin && args.username.is_none() {
        return Err(Failure::new("--password-stdin needs --username"));
    }
    let mut known = None;
    if let (None, None, Some((user, password))) = (&args.username, &args.password, existing) {
        output::println(&format!("Authenticating with existing credentials for {}", account.name))?;
        if account.check(&user, &password).is_ok() {
            output::println(&format!(
                "Existing credentials are valid. Already logged in to {}",
                account.name
            ))?;
            return Ok(0);
        }
        output::println("Existing credentials are invalid, please enter valid username and password")?;
        known = Some(user);
    }
    let user = match args.username.clone() {
        Some(user) => user,
        None => ask_user(known)?,
    };
    let password = match args.password.clone() {
        Some(password) => password,
        None if args.password_stdin => from_stdin()?,
        None => ask_password()?,
    };
    if user.is_empty() || user.contains(':') {
        return Err(Failure::new("a user name is not empty and has no colon"));
    }
    account.check(&user, &password).map_err(engine::Error::from)?;
    account.store(&user, &password).map_err(engine::Error::from)?;
    if args.verbose {
        output::println(&format!("Used: {}", account.file.path.display()))?;
    }
    output::println("Login Succeeded!")?;
    Ok(0)
}

/// `logout`.
pub fn logout(args: LogoutArgs, _: &Globals) -> Outcome {
    let reach = Reach { authfile: args.authfile, ..Reach::default() };
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if args.all {
        if args.registry.is_some() {
            return Err(Failure::new("--all takes no registry"));
        }
        login::remove_all(&reach, args.compat_auth_file).map_err(engine::Error::from)?;
        output::println("Removed login credentials for all registries")?;
        return Ok(0);
    }
    let account =
        Account::new(args.registry.as_deref(), reach, args.compat_auth_file).map_err(engine::Error::from)?;
    account.remove().map_err(engine::Error::from)?;
    output::println(&format!("Removed login credentials for {}", account.name))?;
    Ok(0)
}

fn reading(error: std::io::Error) -> Failure {
    Failure::new(format!("reading standard input: {error}"))
}

fn ask_user(known: Option<String>) -> Result<String, Failure> {
    let text = match &known {
        Some(user) => format!("Username ({user}): "),
        None => "Username: ".to_owned(),
    };
    output::print(&text)?;
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line).map_err(reading)?;
    let user = line.trim().to_owned();
    match known {
        Some(known) if user.is_empty() => Ok(known),
        _ if read == 0 || user.is_empty() => {
            Err(Failure::new("no user name was given").with_hint("name it with --username"))
        }
        _ => Ok(user),
    }
}

fn ask_password() -> Result<String, Failure> {
    ask_secret("Password: ", "a password", "--password-stdin reads it from standard input")
}

/// Asks for what nobody is to see, on a terminal.
pub fn ask_secret(prompt: &str, what: &str, hint: &str) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::new(format!("{what} is asked for on a terminal only")).with_hint(hint));
    }
    output::print(prompt)?;
    let silent = pty::hide_input(rustix::stdio::stdin()).map_err(reading)?;
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    drop(silent);
    output::println("")?;
    read.map_err(reading)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

fn from_stdin() -> Result<String, Failure> {
    // Nobody's password is longer; whatever is fed in must not fill the memory.
    const MOST: u64 = 1 << 20;
    let mut text = String::new();
    std::io::stdin().lock().take(MOST).read_to_string(&mut text).map_err(reading)?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}
