//! Who the program is, and which ids there are.

use clap::Args;

use crate::engine::request::RunRequest;

/// Who the program is, and which ids there are.
#[derive(Args, Debug, Clone)]
pub struct Users {
    /// Run as this user of the image
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// A further group of the program, by name or ID; or keep-groups for our own
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// The user namespace: host, keep-id, auto, nomap, private, container:NAME or ns:PATH
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,
    /// Map user IDs
    #[arg(long, value_name = "CONTAINER:FROM[:COUNT]")]
    uidmap: Vec<String>,
    /// Map group IDs
    #[arg(long, value_name = "CONTAINER:FROM[:COUNT]")]
    gidmap: Vec<String>,
    /// Map the subordinate user IDs of this name in /etc/subuid
    #[arg(long, value_name = "NAME")]
    subuidname: Option<String>,
    /// Map the subordinate group IDs of this name in /etc/subgid
    #[arg(long, value_name = "NAME")]
    subgidname: Option<String>,
    /// Make a user of the host known in the container
    #[arg(long, value_name = "USER")]
    hostuser: Vec<String>,
    /// Make the program's user known in /etc/passwd and /etc/group (the default)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    passwd: Option<bool>,
    /// How the user is made known in /etc/passwd; $USERNAME, $UID, $GID, $NAME, $HOME are filled in
    #[arg(long, value_name = "LINE")]
    passwd_entry: Option<String>,
    /// The same for /etc/group; $GROUPNAME, $GID, $USERLIST
    #[arg(long, value_name = "LINE")]
    group_entry: Option<String>,
}

impl Users {
    /// Writes what was asked for into `request`.
    pub fn fill(&self, request: &mut RunRequest) {
        let this = self.clone();
        request.user = this.user;
        request.group_add = this.group_add;
        request.userns = this.userns;
        request.uidmaps = this.uidmap;
        request.gidmaps = this.gidmap;
        request.subuidname = this.subuidname;
        request.subgidname = this.subgidname;
        request.hostusers = this.hostuser;
        request.passwd = this.passwd.unwrap_or(true);
        request.passwd_entry = this.passwd_entry;
        request.group_entry = this.group_entry;
    }
}
