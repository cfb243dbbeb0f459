//! The conversation as a model, explored to the end: either process may die before any of its steps, and a wait may be over at any moment
//! at which nothing has come.
//!
//! Checked in every state: never do both forward. And where nothing more happens: somebody forwards, unless whoever was in charge is dead.

use std::collections::{BTreeSet, VecDeque};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    LetGo,
    Gone,
    Ready,
    Yours,
    No,
}

/// The running process, behind `prepare`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Old {
    /// It forwards, and waits for `let-go`.
    Forwards,
    /// It stands still, and waits for `ready`.
    Still,
    /// It has said no, and waits for the other's end.
    HasSaidNo,
    /// It forwards as before.
    GoesOn,
    /// It has said `yours`.
    Relieved,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum New {
    Prepares,
    /// It waits for `gone`.
    Asks,
    TakesUp,
    /// It waits for `yours`.
    IsReady,
    Forwards,
    Dead,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    old: Old,
    new: New,
    to_old: VecDeque<Said>,
    to_new: VecDeque<Said>,
}

/// Mistakes that somebody could make here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The new one forwards as soon as it could.
    Hasty,
    /// The new one takes silence for assent.
    Presuming,
    /// The old one goes on though it has given its word.
    Faithless,
    /// The old one keeps its no to itself, and answers the `ready` that comes after it.
    Fickle,
    /// The old one waits for a dead one for ever.
    Loyal,
    /// The new one says `ready` and lives on when it hears no.
    Deaf,
}

impl World {
    /// Every state that can be next. `deaths` tells whether processes may die.
    fn next(&self, fault: Fault) -> Vec<World> {
        let mut all = Vec::new();
        let mut push = |change: &dyn Fn(&mut World)| {
            let mut next = self.clone();
            change(&mut next);
            all.push(next);
        };
        if self.old != Old::Dead {
            push(&|w| w.old = Old::Dead);
        }
        if self.new != New::Dead {
            push(&|w| w.new = New::Dead);
        }
        // What a wait ends with: a word, or none in time, or the end of the line.
        let heard = self.to_old.front().copied();
        let nothing = heard.is_none();
        match self.old {
            Old::Forwards => {
                if heard == Some(Said::LetGo) {
                    push(&|w| {
                        w.to_old.pop_front();
                        w.old = Old::Still;
                        w.to_new.push_back(Said::Gone);
                    });
                } else if nothing {
                    push(&|w| w.old = Old::GoesOn);
                }
            }
            Old::Still => {
                if heard == Some(Said::Ready) {
                    push(&|w| {
                        w.to_old.pop_front();
                        w.old = if fault == Fault::Faithless { Old::GoesOn } else { Old::Relieved };
                        w.to_new.push_back(Said::Yours);
                    });
                }
                // Also with a word on its way.
                if fault != Fault::Loyal {
                    push(&|w| {
                        w.old = Old::HasSaidNo;
                        if fault != Fault::Fickle {
                            w.to_new.push_back(Said::No);
                        }
                    });
                }
            }
            Old::HasSaidNo => {
                if fault == Fault::Fickle && heard == Some(Said::Ready) {
                    push(&|w| {
                        w.to_old.pop_front();
                        w.old = Old::GoesOn;
                        w.to_new.push_back(Said::Yours);
                    });
                }
                push(&|w| w.old = Old::GoesOn);
            }
            Old::GoesOn | Old::Relieved | Old::Dead => {}
        }
        let heard = self.to_new.front().copied();
        match self.new {
            New::Prepares => push(&|w| {
                w.new = New::Asks;
                w.to_old.push_back(Said::LetGo);
            }),
            New::Asks if heard == Some(Said::Gone) => push(&|w| {
                w.to_new.pop_front();
                w.new = New::TakesUp;
            }),
            New::TakesUp => push(&|w| {
                w.new = if fault == Fault::Hasty { New::Forwards } else { New::IsReady };
                w.to_old.push_back(Said::Ready);
            }),
            New::IsReady if heard == Some(Said::Yours) || fault == Fault::Deaf && heard == Some(Said::No) => {
                push(&|w| {
                    w.to_new.pop_front();
                    w.new = New::Forwards;
                });
            }
            New::IsReady if fault == Fault::Presuming => push(&|w| w.new = New::Forwards),
            // Another word, none in time, or the end of the line: it ends.
            New::Asks | New::IsReady => push(&|w| w.new = New::Dead),
            New::Forwards | New::Dead => {}
        }
        all
    }

    fn both_forward(&self) -> bool {
        self.new == New::Forwards && matches!(self.old, Old::Forwards | Old::GoesOn)
    }

    /// Nobody forwards though nobody who could is dead: the old one stands still, and nothing will come.
    fn is_stuck(&self, fault: Fault) -> bool {
        let waits = matches!(self.old, Old::Still | Old::HasSaidNo);
        // Deaths apart, which always can come.
        let goes_on = self.next(fault).iter().any(|next| {
            let old_died = next.old == Old::Dead && self.old != Old::Dead;
            let new_died = next.new == New::Dead && self.new != New::Dead;
            !old_died && !new_died
        });
        waits && !goes_on
    }
}

/// What goes wrong, if anything does, in any order of events; and how many states there are.
fn explored(fault: Fault) -> Result<usize, World> {
    let start =
        World { old: Old::Forwards, new: New::Prepares, to_old: VecDeque::new(), to_new: VecDeque::new() };
    let (mut seen, mut open) = (BTreeSet::from([start.clone()]), vec![start]);
    while let Some(world) = open.pop() {
        if world.both_forward() || world.is_stuck(fault) {
            return Err(world);
        }
        for next in world.next(fault) {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    Ok(seen.len())
}

#[test]
fn never_do_both_forward_and_nobody_waits_for_ever() {
    let states = explored(Fault::None).unwrap_or_else(|world| panic!("{world:?}"));
    assert!(states > 40, "{states}");
}

#[test]
fn each_mistake_that_somebody_could_make_is_seen() {
    for fault in [Fault::Hasty, Fault::Presuming, Fault::Faithless, Fault::Fickle, Fault::Loyal, Fault::Deaf]
    {
        assert!(explored(fault).is_err(), "{fault:?}");
    }
}
