//! Users and groups, read straight from `/etc/passwd` and `/etc/group`: a static glibc has no NSS.

use std::fs;

/// Who a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User name; the number for a user without an entry.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, the primary one included.
    pub groups: Vec<u32>,
    /// Home directory; `/` for a user without an entry.
    pub home: String,
    /// Login shell; `/bin/sh` for a user without an entry.
    pub shell: String,
}

/// A user specification names nobody.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UserError {
    /// The user part is neither a number nor a name in `/etc/passwd`.
    #[error("no user {0:?} in /etc/passwd")]
    User(String),
    /// The group part is neither a number nor a name in `/etc/group`.
    #[error("no group {0:?} in /etc/group")]
    Group(String),
}

/// The two files.
#[derive(Debug, Clone, Default)]
pub struct Database {
    passwd: String,
    group: String,
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
    shell: &'a str,
}

impl Database {
    /// Reads the system's files. A missing one counts as empty.
    pub fn read() -> Self {
        let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        Self {
            passwd: text("/etc/passwd"),
            group: text("/etc/group"),
        }
    }

    /// A database with this content.
    pub fn new(passwd: impl Into<String>, group: impl Into<String>) -> Self {
        Self {
            passwd: passwd.into(),
            group: group.into(),
        }
    }

    /// Resolves `name`, `uid`, `name:group`, `uid:gid`; `None` is `default_uid`. As in `docker exec`, an
    /// explicit group replaces the supplementary ones.
    ///
    /// # Errors
    /// [`UserError`] when a name is unknown; numbers need no entry (their group defaults to the same number).
    pub fn resolve(&self, spec: Option<&str>, default_uid: u32) -> Result<Identity, UserError> {
        let (user, group) = match spec {
            None => (default_uid.to_string(), None),
            Some(spec) => match spec.split_once(':') {
                Some((user, group)) => (user.to_owned(), Some(group)),
                None => (spec.to_owned(), None),
            },
        };
        let mut identity = self.user(&user)?;
        if let Some(group) = group {
            identity.gid = self.group_id(group)?;
            identity.groups = vec![identity.gid];
        }
        Ok(identity)
    }

    /// Id of the group with this name or number.
    ///
    /// # Errors
    /// [`UserError::Group`].
    pub fn group_id(&self, group: &str) -> Result<u32, UserError> {
        let by_name = self
            .groups()
            .find_map(|(name, gid, _)| (name == group).then_some(gid));
        by_name
            .or_else(|| id(group))
            .ok_or_else(|| UserError::Group(group.to_owned()))
    }

    fn user(&self, user: &str) -> Result<Identity, UserError> {
        let entry = self.entries().find(|entry| entry.name == user).or_else(|| {
            let uid = id(user)?;
            self.entries().find(|entry| entry.uid == uid)
        });
        if let Some(entry) = entry {
            let mut groups = vec![entry.gid];
            for (_, gid, members) in self.groups() {
                let member = members.split(',').any(|member| member == entry.name);
                if member && !groups.contains(&gid) {
                    groups.push(gid);
                }
            }
            let or = |text: &str, default: &str| {
                if text.is_empty() {
                    default.to_owned()
                } else {
                    text.to_owned()
                }
            };
            return Ok(Identity {
                name: entry.name.to_owned(),
                uid: entry.uid,
                gid: entry.gid,
                groups,
                home: or(entry.home, "/"),
                shell: or(entry.shell, "/bin/sh"),
            });
        }
        let uid = id(user).ok_or_else(|| UserError::User(user.to_owned()))?;
        Ok(Identity {
            name: uid.to_string(),
            uid,
            gid: uid,
            groups: vec![uid],
            home: "/".into(),
            shell: "/bin/sh".into(),
        })
    }

    /// Entries of `/etc/passwd`; malformed lines are skipped, as `getpwent` does.
    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let uid = id(fields.nth(1)?)?;
            let gid = id(fields.next()?)?;
            let home = fields.nth(1)?;
            let shell = fields.next().unwrap_or("");
            Some(Entry {
                name,
                uid,
                gid,
                home,
                shell,
            })
        })
    }

    /// Name, id and comma-separated members of each group.
    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let gid = id(fields.nth(1)?)?;
            Some((name, gid, fields.next().unwrap_or("")))
        })
    }
}

/// A decimal id. 2^32-1 is not one: to the kernel it means "leave unchanged".
fn id(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Database {
        Database::new(
            "root:x:0:0:root:/root:/bin/bash\n# comment\nbroken:x\nagent:x:1000:1000:,,,:/home/agent:/bin/bash\nbare:x:7:8::/:\n",
            "root:x:0:\nsudo:x:27:agent\ndocker:x:999:other,agent\nagent:x:1000:\nagents:x:5:agent2\n",
        )
    }

    #[test]
    fn default_user_has_home_shell_and_supplementary_groups() {
        let agent = database().resolve(None, 1000).unwrap();
        assert_eq!(agent.name, "agent");
        assert_eq!(agent.groups, [1000, 27, 999]);
        assert_eq!(
            (agent.home.as_str(), agent.shell.as_str()),
            ("/home/agent", "/bin/bash")
        );
    }

    #[test]
    fn names_and_numbers_with_and_without_group() {
        let db = database();
        assert_eq!(db.resolve(Some("root"), 1000).unwrap().uid, 0);
        let mixed = db.resolve(Some("agent:docker"), 0).unwrap();
        assert_eq!((mixed.uid, mixed.gid, mixed.groups), (1000, 999, vec![999]));
        let numbers = db.resolve(Some("1000:4"), 0).unwrap();
        assert_eq!((numbers.name.as_str(), numbers.gid), ("agent", 4));
        let unknown = db.resolve(Some("4321"), 0).unwrap();
        assert_eq!(
            (unknown.uid, unknown.gid, unknown.home.as_str()),
            (4321, 4321, "/")
        );
        assert_eq!(db.resolve(Some("bare"), 0).unwrap().shell, "/bin/sh");
    }

    #[test]
    fn unknown_names_and_the_no_change_id_are_refused() {
        let db = database();
        assert_eq!(
            db.resolve(Some("nobody"), 0),
            Err(UserError::User("nobody".into()))
        );
        assert_eq!(
            db.resolve(Some("root:none"), 0),
            Err(UserError::Group("none".into()))
        );
        assert!(db.resolve(Some("4294967295"), 0).is_err());
        assert!(db.resolve(Some("0:4294967295"), 0).is_err());
        assert!(db.resolve(Some("+5"), 0).is_err());
        assert!(db.resolve(Some(""), 0).is_err());
    }
}
