//! The body of an answer: in pieces that go as they are sent. All answers on their way take no more memory than a bound: beyond it, the
//! one that waits for its reader the longest is cut off. So who reads a byte a second keeps nobody else from an answer.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::Frame;

/// Bytes of all answers on their way at most; a single one may have more.
const MOST: usize = 64 << 20;

/// Those on their way, the oldest first.
static ON_THEIR_WAY: Mutex<VecDeque<Weak<Pieces>>> = Mutex::new(VecDeque::new());

/// What is left of an answer.
#[derive(Default)]
struct Pieces(Mutex<Left>);

#[derive(Default)]
struct Left {
    pieces: VecDeque<Bytes>,
    is_cut: bool,
}

impl Pieces {
    fn left(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> usize {
        self.left().pieces.iter().map(Bytes::len).sum()
    }

    fn cut(&self) {
        *self.left() = Left { pieces: VecDeque::new(), is_cut: true };
    }
}

/// An answer on its way.
pub(super) struct Answer(Arc<Pieces>);

impl Answer {
    /// Has room for it.
    pub fn new(pieces: Vec<Bytes>) -> Answer {
        let answer = Arc::new(Pieces(Mutex::new(Left { pieces: pieces.into(), is_cut: false })));
        let mut others = ON_THEIR_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut others, MOST.saturating_sub(answer.len()));
        others.push_back(Arc::downgrade(&answer));
        Answer(answer)
    }

    /// For the response.
    pub fn into_body(self) -> Body {
        Body::new(self)
    }
}

/// Leaves no more than so many bytes of the others.
fn make_room(others: &mut VecDeque<Weak<Pieces>>, most: usize) {
    others.retain(|other| other.strong_count() > 0);
    let mut taken: usize = others.iter().filter_map(Weak::upgrade).map(|other| other.len()).sum();
    while taken > most {
        let Some(oldest) = others.pop_front() else { break };
        if let Some(oldest) = oldest.upgrade() {
            taken -= oldest.len();
            oldest.cut();
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut left = self.0.left();
        if left.is_cut {
            let why = "others need the memory of an answer that nobody reads";
            return Poll::Ready(Some(Err(io::Error::other(why))));
        }
        Poll::Ready(left.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(bytes: usize) -> Arc<Pieces> {
        let piece = Bytes::from(vec![0; bytes]);
        Arc::new(Pieces(Mutex::new(Left { pieces: [piece].into(), is_cut: false })))
    }

    #[test]
    fn the_oldest_answers_are_cut_when_others_need_their_memory() {
        let kept = [pieces(10), pieces(20), pieces(30)];
        let mut others: VecDeque<_> = kept.iter().map(Arc::downgrade).collect();
        others.push_front(Weak::new());
        make_room(&mut others, 60);
        assert_eq!(others.len(), 3, "who is gone is forgotten");
        make_room(&mut others, 50);
        assert_eq!(kept.each_ref().map(|pieces| pieces.left().is_cut), [true, false, false]);
        make_room(&mut others, 0);
        assert_eq!(kept.each_ref().map(|pieces| pieces.len()), [0, 0, 0]);
    }
}
