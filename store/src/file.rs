//! Small files that others put there: keys, passwords, tokens, certificates.
//!
//! Whatever stands in such a file's place, a pipe that nobody writes to, a device, something without end: reading it
//! ends soon, and takes no more memory than was allowed. Blocks, so it is not for a runtime's threads but for
//! `spawn_blocking` ([`text_soon`] does that). Not here: who may read a file, and what must be in it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// Opens it to be read, without waiting for somebody to write to it.
///
/// # Errors
/// As the system says; a directory is one, too.
pub fn open(path: &Path) -> io::Result<File> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    if file.metadata()?.is_dir() { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(file) }
}

/// All that a file from [`open`] holds, `most` bytes or fewer. Who writes to a pipe is waited for, 5 seconds in all.
///
/// # Errors
/// As the system says; when there is more, or nothing more comes.
pub fn contents(file: &mut File, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let deadline = Instant::now() + PATIENCE;
    // Of its final size at once: what grows leaves copies behind.
    let mut bytes = Zeroizing::new(vec![0; most + 1]);
    let mut length = 0;
    while length <= most {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(file, deadline)?,
            Err(error) => return Err(error),
        }
    }
    if length > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes")));
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// All bytes of the file of that name, `most` or fewer.
///
/// # Errors
/// Those of [`open`] and [`contents`]
pub fn read(path: &Path, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    contents(&mut open(path)?, most)
}

/// The text in the file of that name, at most 1 MiB.
///
/// # Errors
/// Those of [`open`] and [`contents`]; when it is not UTF-8.
pub fn text(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut bytes = read(path, LONGEST_TEXT)?;
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(io::Error::new(io::ErrorKind::InvalidData, "it is not text"))
        }
    }
}

/// [`text`], on a thread for what blocks.
///
/// # Errors
/// As [`text`]
pub async fn text_soon(path: PathBuf) -> io::Result<Zeroizing<String>> {
    tokio::task::spawn_blocking(move || text(&path)).await.map_err(io::Error::other)?
}

fn wait(file: &File, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "it is a pipe that nobody writes to"));
    }
    // Longer than any wait is.
    let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&left)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_TEXT: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn files_are_read_whole_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "12345678").unwrap();
        assert_eq!(read(&path, 8).unwrap().as_slice(), b"12345678");
        assert_eq!(read(&path, 7).unwrap_err().to_string(), "it has more than 7 bytes");
        assert_eq!(text(&path).unwrap().as_str(), "12345678");
        std::fs::write(&path, [0xff]).unwrap();
        assert_eq!(text(&path).unwrap_err().to_string(), "it is not text");
        std::fs::write(&path, "").unwrap();
        assert!(read(&path, 0).unwrap().is_empty());
        assert_eq!(read(dir.path(), 8).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(read(&dir.path().join("none"), 8).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn nothing_in_its_place_is_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        assert!(read(&path, 8).unwrap().is_empty(), "nobody writes to it");
        let writer = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let begun = Instant::now();
        assert_eq!(read(&path, 8).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= PATIENCE);
        drop(writer);
        assert_eq!(read(Path::new("/dev/zero"), 8).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn who_writes_to_a_pipe_is_waited_for() {
        let (reader, mut writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        let writing = std::thread::spawn(move || {
            for piece in ["12", "34"] {
                writer.write_all(piece.as_bytes()).unwrap();
                std::thread::yield_now();
            }
        });
        assert_eq!(read(Path::new(&path), 8).unwrap().as_slice(), b"1234");
        writing.join().unwrap();
    }
}
