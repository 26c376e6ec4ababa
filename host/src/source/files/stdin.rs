//! Standard input, read by a thread of its own: whoever asks waits a moment at most, so that commits and signals are
//! served while a pipe is quiet.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// How much is read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// How many chunks wait; the thread waits when there are more.
const CHUNKS: usize = 8;
/// How long a reader waits for something to come.
const WAIT: Duration = Duration::from_millis(20);

/// The other end of the thread. A read that finds nothing yet fails with [`io::ErrorKind::WouldBlock`].
pub(super) struct Stdin {
    chunks: Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    used: usize,
}

/// Starts to read standard input, gunzipped where it is gzip. The thread ends with its input or its reader.
pub(super) fn spawn() -> Stdin {
    reading(io::stdin())
}

fn reading(from: impl Read + Send + 'static) -> Stdin {
    let (sender, chunks) = sync_channel(CHUNKS);
    std::thread::spawn(move || send_all(from, &sender));
    Stdin { chunks, chunk: Vec::new(), used: 0 }
}

fn send_all(from: impl Read + Send + 'static, to: &SyncSender<io::Result<Vec<u8>>>) {
    let mut from = match super::decoded(from) {
        Ok(from) => from,
        Err(error) => {
            // A reader that is gone needs no error.
            let _ = to.send(Err(error));
            return;
        }
    };
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = match from.read(&mut chunk) {
            Ok(0) => return,
            Ok(len) => {
                chunk.truncate(len);
                to.send(Ok(chunk))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let _ = to.send(Err(error));
                return;
            }
        };
        if read.is_err() {
            return;
        }
    }
}

impl Read for Stdin {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.used == self.chunk.len() {
            self.chunk = match self.chunks.recv_timeout(WAIT) {
                Ok(chunk) => chunk?,
                Err(RecvTimeoutError::Timeout) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            };
            self.used = 0;
        }
        let len = to.len().min(self.chunk.len() - self.used);
        to[..len].copy_from_slice(&self.chunk[self.used..self.used + len]);
        self.used += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_quiet_pipe_makes_nobody_wait() {
        let (from, mut to) = io::pipe().expect("a pipe");
        let mut stdin = reading(from);
        let mut bytes = [0; 16];
        let nothing = stdin.read(&mut bytes).expect_err("nothing was written yet");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        to.write_all(b"hello").expect("a pipe");
        drop(to);
        let mut read = Vec::new();
        loop {
            match stdin.read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                len => match len.expect("a pipe") {
                    0 => break,
                    len => read.extend_from_slice(&bytes[..len]),
                },
            }
        }
        assert_eq!(read, b"hello");
    }
}
