//! What is asked of a server in a turn.

use std::path::Path;
use std::time::Instant;

use sbx_testkit::virtio_fs::{
    Answer, Client, Data, Error, MOST, ROOT, Request, Which, create, created, forget, getattr,
    handle, list, lookup, op, open, read, release, write,
};

use super::server::Server;

/// Directories, half of them for each way of asking.
const DIRECTORIES: usize = 40;
/// Directories above them, as in a project: a server that walks from the root walks them all.
const ABOVE: [&str; 3] = ["packages", "app", "src"];
/// Files in each.
const FILES: usize = 100;
/// Requests on their way at once: one, or as many as a busy guest has.
const DEPTHS: [usize; 2] = [1, 32];
/// Bytes of a small read.
const SMALL: u32 = 4096;
/// Bytes of the large file.
const LARGE: u64 = 256 << 20;
/// How often it is written and read in a turn: by the clock, which others on the machine move too.
const SEQUENTIAL: usize = 3;
/// Bytes that a guest's kernel offers for a part of a listing.
const LISTING: u32 = 4096;
/// How often each directory is listed.
const LISTINGS: usize = 64;

/// Flags of open(2): to read, and for both.
const READ: u32 = 0;
const READ_WRITE: u32 = 2;

/// A file that the client knows.
struct File {
    parent: u64,
    name: String,
    node: u64,
    handle: u64,
    /// How often the server has told of it: it wants to be told to forget it so often.
    told: u64,
}

/// Everything, in the order in which it can be done. `note` gets each figure.
pub(super) fn all(
    server: &Server,
    tree: &Path,
    mut note: impl FnMut(String, f64),
) -> Result<(), String> {
    let mut turn = Turn {
        client: server.connect()?,
        server,
    };
    let metrics = turn.run(tree).map_err(|error| error.to_string())?;
    for (metric, value) in metrics {
        note(metric, value);
    }
    Ok(())
}

struct Turn<'a> {
    client: Client,
    server: &'a Server,
}

type Metrics = Vec<(String, f64)>;

impl Turn<'_> {
    fn run(&mut self, tree: &Path) -> Result<Metrics, Error> {
        let mut metrics = vec![("visible_ms".to_owned(), self.visible(tree)?)];
        let (mut above, mut path) = (ROOT, tree.to_owned());
        for name in ABOVE {
            above = self.client.mkdir(above, name, 0o755)?.node;
            path.push(name);
        }
        let mut directories = Vec::new();
        for index in 0..DIRECTORIES {
            let name = format!("d{index}");
            directories.push((self.client.mkdir(above, &name, 0o755)?.node, name));
        }
        let half = DIRECTORIES / DEPTHS.len();
        for (depth, directories) in DEPTHS.into_iter().zip(directories.chunks(half)) {
            let way = if depth == 1 {
                String::new()
            } else {
                format!("_q{depth}")
            };
            let mut note = |what: &str, value| {
                metrics.push((format!("req_per_cpu_s_{what}{way}"), value));
            };
            let mut files = Vec::new();
            note("create", self.create(directories, &mut files, depth)?);
            for (_, name) in directories {
                fill(&path.join(name))?;
            }
            note("lookup", self.look_up(&mut files, depth)?);
            note("stat", self.stat(&files, depth)?);
            note("open", self.open(&mut files, depth)?);
            note("read", self.read(&mut files, depth)?);
            if depth == 1 {
                note("readdir", self.list(op::READDIR, directories, &mut files)?);
                note(
                    "readdirplus",
                    self.list(op::READDIRPLUS, directories, &mut files)?,
                );
            }
            note("unlink", self.unlink(&files, depth)?);
        }
        for _ in 0..SEQUENTIAL {
            let [write, read] = self.sequential()?;
            metrics.push(("seq_mb_s_write".to_owned(), write));
            metrics.push(("seq_mb_s_read".to_owned(), read));
        }
        Ok(metrics)
    }

    /// Milliseconds from a change on the host until a guest that knew the file must have seen it.
    fn visible(&mut self, tree: &Path) -> Result<f64, Error> {
        std::fs::write(tree.join("seen"), "a")?;
        let known = self.client.lookup(ROOT, "seen")?;
        std::fs::write(tree.join("seen"), "longer")?;
        let start = Instant::now();
        let size = self.client.getattr(known.node)?.size;
        if size != 6 {
            return Err(Error::Wrong(format!("{size} bytes after a change to 6")));
        }
        Ok((known.kept + start.elapsed()).as_secs_f64() * 1000.0)
    }

    /// Requests by the server's seconds of processor time, where so many were made.
    fn rate(&mut self, ask: impl FnOnce(&mut Self) -> Result<usize, Error>) -> Result<f64, Error> {
        let before = self.server.cpu_seconds();
        let count = ask(self)?;
        let used = self.server.cpu_seconds() - before;
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
        let count = count as f64;
        Ok(count / used)
    }

    /// Asks all, so many at once, and hands over what was answered.
    fn ask(
        &mut self,
        requests: &[Request<'_>],
        depth: usize,
        mut answered: impl FnMut(usize, &Client, &Answer) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        for (at, part) in requests.chunks(depth).enumerate() {
            let answers = self.client.ask_all(part)?;
            for (index, answer) in answers.iter().enumerate() {
                answered(at * depth + index, &self.client, answer)?;
            }
        }
        Ok(requests.len())
    }

    /// Creates every file; closing them is not counted.
    fn create(
        &mut self,
        directories: &[(u64, String)],
        files: &mut Vec<File>,
        depth: usize,
    ) -> Result<f64, Error> {
        let names: Vec<_> = directories
            .iter()
            .flat_map(|(node, _)| (0..FILES).map(|index| (*node, format!("file-{index}"))))
            .collect();
        let flags = READ_WRITE;
        let requests: Vec<_> = names
            .iter()
            .map(|(node, name)| create(*node, name, 0o644, flags))
            .collect();
        let rate = self.rate(|turn| {
            turn.ask(&requests, depth, |index, client, answer| {
                let (entry, handle) = created(&client.bytes(answer)?)?;
                let (parent, name) = names[index].clone();
                files.push(File {
                    parent,
                    name,
                    node: entry.node,
                    handle,
                    told: 1,
                });
                Ok(())
            })
        })?;
        self.release(files, depth)?;
        Ok(rate)
    }

    fn release(&mut self, files: &[File], depth: usize) -> Result<usize, Error> {
        let requests: Vec<_> = files
            .iter()
            .map(|file| release(op::RELEASE, file.node, file.handle))
            .collect();
        self.ask(&requests, depth, |_, _, _| Ok(()))
    }

    fn look_up(&mut self, files: &mut [File], depth: usize) -> Result<f64, Error> {
        let requests: Vec<_> = files
            .iter()
            .map(|file| lookup(file.parent, &file.name))
            .collect();
        let rate = self.rate(|turn| turn.ask(&requests, depth, |_, _, _| Ok(())));
        for file in files {
            file.told += 1;
        }
        rate
    }

    fn stat(&mut self, files: &[File], depth: usize) -> Result<f64, Error> {
        let requests: Vec<_> = files.iter().map(|file| getattr(file.node)).collect();
        self.rate(|turn| turn.ask(&requests, depth, |_, _, _| Ok(())))
    }

    fn open_all(&mut self, files: &mut [File], depth: usize) -> Result<usize, Error> {
        let flags = READ;
        let requests: Vec<_> = files.iter().map(|file| open(file.node, flags)).collect();
        self.ask(&requests, depth, |index, client, answer| {
            files[index].handle = handle(&client.bytes(answer)?)?;
            Ok(())
        })
    }

    /// Opens and closes every file: two requests each. Nobody waits for a file to be closed, as Linux does not (it sends
    /// FUSE_RELEASE in the background, `fuse_file_put`): what is opened next comes together with it.
    fn open(&mut self, files: &mut [File], depth: usize) -> Result<f64, Error> {
        self.rate(|turn| {
            let (mut closing, mut count) = (Vec::new(), 0);
            for part in files.chunks_mut(depth.div_ceil(2)) {
                let mut requests = std::mem::take(&mut closing);
                let before = requests.len();
                requests.extend(part.iter().map(|file| open(file.node, READ)));
                let answers = turn.client.ask_all(&requests)?;
                for (file, answer) in part.iter_mut().zip(&answers[before..]) {
                    file.handle = handle(&turn.client.bytes(answer)?)?;
                    closing.push(release(op::RELEASE, file.node, file.handle));
                }
                count += requests.len();
            }
            turn.client.ask_all(&closing)?;
            Ok(count + closing.len())
        })
    }

    /// Reads every file whole; opening and closing are not counted.
    fn read(&mut self, files: &mut [File], depth: usize) -> Result<f64, Error> {
        self.open_all(files, depth)?;
        let requests: Vec<_> = files
            .iter()
            .map(|file| read(file.node, file.handle, 0, SMALL))
            .collect();
        let rate = self.rate(|turn| {
            turn.ask(&requests, depth, |_, _, answer| match answer.length {
                SMALL => Ok(()),
                length => Err(Error::Wrong(format!("{length} bytes were read"))),
            })
        })?;
        self.release(files, depth)?;
        Ok(rate)
    }

    /// Lists every directory. Counted are the names: servers differ in how many they give at once.
    fn list(
        &mut self,
        op: u32,
        directories: &[(u64, String)],
        files: &mut [File],
    ) -> Result<f64, Error> {
        let plus = op == op::READDIRPLUS;
        let handles: Result<Vec<_>, Error> = directories
            .iter()
            .map(|(node, _)| Ok((*node, self.client.opendir(*node)?)))
            .collect();
        let handles = handles?;
        let rate = self.rate(|turn| {
            let mut count = 0;
            for _ in 0..LISTINGS {
                for &(node, handle) in &handles {
                    let names = turn.list_one(op, node, handle)?;
                    if names != FILES + 2 {
                        return Err(Error::Wrong(format!("{names} names are listed")));
                    }
                    count += names;
                }
            }
            Ok(count)
        })?;
        if plus {
            for file in files {
                file.told += LISTINGS as u64;
            }
        }
        for (node, handle) in handles {
            self.client.releasedir(node, handle)?;
        }
        Ok(rate)
    }

    fn list_one(&mut self, op: u32, node: u64, handle: u64) -> Result<usize, Error> {
        let (mut names, mut offset) = (0, 0);
        loop {
            let part = if op == op::READDIRPLUS {
                self.client.readdirplus(node, handle, offset, LISTING)?
            } else {
                self.client.readdir(node, handle, offset, LISTING)?
            };
            let Some(last) = part.last() else {
                return Ok(names);
            };
            offset = last.offset;
            names += part.len();
        }
    }

    /// Removes every file and has the server forget it: two requests each.
    fn unlink(&mut self, files: &[File], depth: usize) -> Result<f64, Error> {
        let requests = |part: &[File]| -> (Vec<_>, Vec<_>) {
            let unlink = |file: &File| Request::new(op::UNLINK, file.parent).name(&file.name);
            let forget = |file: &File| forget(file.node, file.told);
            (
                part.iter().map(unlink).collect(),
                part.iter().map(forget).collect(),
            )
        };
        let parts: Vec<_> = files.chunks(depth).map(requests).collect();
        self.rate(|turn| {
            let mut count = 0;
            for (unlink, forget) in &parts {
                count += turn.ask(unlink, depth, |_, _, _| Ok(()))?;
                turn.client.forget_all(forget)?;
                count += forget.len();
            }
            Ok(count)
        })
    }

    /// Megabytes a second of a large file written and read in requests of 1 MiB.
    fn sequential(&mut self) -> Result<[f64; 2], Error> {
        let flags = READ_WRITE;
        let (file, handle) = self.client.create(ROOT, "large", 0o644, flags)?;
        let size = u64::from(MOST);
        let offsets = || (0..LARGE / size).map(|index| index * size);
        let fill = vec![7; MOST as usize];
        self.client.write(file.node, handle, 0, &fill)?;
        let start = Instant::now();
        for offset in offsets() {
            let request = write(file.node, handle, offset, MOST, Data::Stale(MOST));
            self.client.ask(&request)?;
        }
        let written = start.elapsed().as_secs_f64();
        let start = Instant::now();
        for offset in offsets() {
            let request = list(op::READ, file.node, handle, offset, MOST);
            if self.client.ask(&request)?.length != MOST {
                return Err(Error::Wrong("a short read".to_owned()));
            }
        }
        let read = start.elapsed().as_secs_f64();
        self.client.release(file.node, handle)?;
        self.client.unlink(ROOT, "large")?;
        self.client
            .device()
            .ask(Which::Urgent, &forget(file.node, 1))?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let megabytes = LARGE as f64 / 1e6;
        Ok([megabytes / written, megabytes / read])
    }
}

/// Gives every file of a directory a page of content, on the host.
fn fill(directory: &Path) -> Result<(), Error> {
    for index in 0..FILES {
        std::fs::write(
            directory.join(format!("file-{index}")),
            [b'x'; SMALL as usize],
        )?;
    }
    Ok(())
}
