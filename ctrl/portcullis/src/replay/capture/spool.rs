//! Captures that cannot be mapped as they are: they are written to a temporary file without a name.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

use flate2::bufread::MultiGzDecoder;

/// First bytes of what gzip has compressed.
pub const GZIP_MAGIC: [u8; 2] = [0x1F, 0x8B];

const BUFFER: usize = 1 << 18;

/// All that `reader` yields, in a temporary file.
pub fn copy(reader: &mut impl Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(reader, &mut file)?;
    Ok(file)
}

/// What a compressed file holds, in a temporary file.
pub fn decompress(mut file: &File) -> Result<File, String> {
    let cannot = |error: io::Error| format!("cannot decompress it: {error}");
    let mut plain = tempfile::tempfile().map_err(cannot)?;
    file.rewind().map_err(cannot)?;
    let mut decoder = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, file));
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = decoder.read(&mut buffer).map_err(|error| {
            let at = file.stream_position().unwrap_or(0) - decoder.get_ref().buffer().len() as u64;
            let what = match error.kind() {
                io::ErrorKind::UnexpectedEof => "truncated: it ends within compressed data".to_owned(),
                _ => format!("not what gzip writes: {error}"),
            };
            format!("at byte {at}: {what}")
        })?;
        if read == 0 {
            return Ok(plain);
        }
        io::Write::write_all(&mut plain, &buffer[..read]).map_err(cannot)?;
    }
}
