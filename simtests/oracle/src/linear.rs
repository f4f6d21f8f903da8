//! A checker of linearizability (Wing and Gong, with Lowe's memory of states seen), for any model of an object.
//!
//! An operation takes effect at one moment between its beginning and its end. One whose outcome is unknown has no end: it
//! takes effect at any time after its beginning, or never. The check searches for an order that explains all answers; it
//! is exponential in the worst case, so it has a budget, and says when that was used up.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash};

use crate::time::Time;

/// The sequential object that the system is to look like.
pub trait Model {
    /// An operation with what was answered.
    type Op: fmt::Display;
    /// The object's state.
    type State: Clone + Eq + Hash;

    /// The state at first.
    fn initial(&self) -> Self::State;

    /// The state after the operation; `None` when in this state it would have been answered otherwise.
    fn step(&self, state: &Self::State, op: &Self::Op) -> Option<Self::State>;

    /// A state in words.
    fn show(&self, state: &Self::State) -> String;

    /// What keeps an operation from being explained by a state, in words, where more than both is to be said.
    fn mismatch(&self, _state: &Self::State, _op: &Self::Op) -> String {
        String::new()
    }

    /// Whether the operation never changes a state, whatever it is.
    fn is_read(&self, op: &Self::Op) -> bool;
}

/// An operation with its times.
#[derive(Clone, Debug)]
pub struct Timed<O> {
    /// What.
    pub op: O,
    /// When it began.
    pub invoked: Time,
    /// When its answer was there; `None` when its outcome is unknown.
    pub ended: Option<Time>,
}

/// What the check says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none: how far the best attempt came, and what it could not explain.
    Violated(String),
    /// The budget was used up before either was known.
    GaveUp,
}

/// Searches for an order, looking at no more than `budget` states.
pub fn check<M: Model>(model: &M, ops: &[Timed<M::Op>], budget: usize) -> Verdict {
    let mut order: Vec<usize> = (0..ops.len()).collect();
    order.sort_by_key(|place| ops.get(*place).map(|op| op.invoked));
    let ops: Vec<&Timed<M::Op>> = order.iter().filter_map(|place| ops.get(*place)).collect();
    Search {
        model,
        definite: ops.iter().filter(|op| op.ended.is_some()).count(),
        ops,
        seen: HashSet::default(),
        best: None,
    }
    .run(budget)
}

/// Its iteration order is never used, and its hasher has no key: the same check takes the same way each time.
type Seen<S> = HashSet<(Bits, S), BuildHasherDefault<DefaultHasher>>;

/// A set of small numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// An empty set of numbers below `count`.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    /// Whether the number is in it.
    #[must_use]
    pub fn has(&self, number: usize) -> bool {
        self.0
            .get(number / 64)
            .is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// Puts a number in.
    pub fn insert(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// Adds all of another set.
    pub fn add(&mut self, other: &Self) {
        for (word, theirs) in self.0.iter_mut().zip(&other.0) {
            *word |= theirs;
        }
    }

    /// Takes away all of another set.
    pub fn remove(&mut self, other: &Self) {
        for (word, theirs) in self.0.iter_mut().zip(&other.0) {
            *word &= !theirs;
        }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.0.len() * 64).filter(|number| self.has(*number))
    }
}

struct Search<'a, M: Model> {
    model: &'a M,
    ops: Vec<&'a Timed<M::Op>>,
    definite: usize,
    seen: Seen<M::State>,
    /// The furthest point: how many definite operations are explained there, the state, and what is to come.
    best: Option<(usize, String)>,
}

struct Frame<S> {
    done: Bits,
    definite_done: usize,
    state: S,
    /// What may come next, the most promising last.
    choices: Vec<usize>,
}

impl<M: Model> Search<'_, M> {
    fn run(&mut self, budget: usize) -> Verdict {
        let first = self.frame(Bits::new(self.ops.len()), 0, self.model.initial());
        let mut stack = vec![first];
        let mut looked_at = 0;
        while let Some(frame) = stack.last_mut() {
            if frame.definite_done == self.definite {
                return Verdict::Linearizable;
            }
            let Some(choice) = frame.choices.pop() else {
                stack.pop();
                continue;
            };
            let Some(op) = self.ops.get(choice) else { continue };
            let Some(state) = self.model.step(&frame.state, &op.op) else {
                continue;
            };
            // An uncertain operation that changes nothing need not have happened.
            if op.ended.is_none() && state == frame.state {
                continue;
            }
            let mut done = frame.done.clone();
            done.insert(choice);
            let definite_done = frame.definite_done + usize::from(op.ended.is_some());
            if !self.seen.insert((done.clone(), state.clone())) {
                continue;
            }
            looked_at += 1;
            if looked_at > budget {
                return Verdict::GaveUp;
            }
            let next = self.frame(done, definite_done, state);
            stack.push(next);
        }
        if self.definite == 0 {
            return Verdict::Linearizable;
        }
        let what = self.best.take().map(|(_, what)| what);
        Verdict::Violated(what.unwrap_or_default())
    }

    fn frame(&mut self, mut done: Bits, mut definite_done: usize, state: M::State) -> Frame<M::State> {
        let choices = loop {
            let choices = self.choices(&done);
            // A read that this state explains may as well come now: it changes nothing for the others.
            let read = choices.iter().copied().find(|place| {
                self.ops.get(*place).is_some_and(|op| {
                    self.model.is_read(&op.op) && self.model.step(&state, &op.op).as_ref() == Some(&state)
                })
            });
            let Some(read) = read else { break choices };
            done.insert(read);
            definite_done += usize::from(self.ops.get(read).is_some_and(|op| op.ended.is_some()));
        };
        if self.best.as_ref().is_none_or(|(most, _)| definite_done > *most) {
            let what = self.explain(definite_done, &state, &choices);
            self.best = Some((definite_done, what));
        }
        Frame {
            done,
            definite_done,
            state,
            choices,
        }
    }

    /// The operations that began before any other that is left ended; uncertain ones first, so that they are tried last.
    fn choices(&self, done: &Bits) -> Vec<usize> {
        let left = || self.ops.iter().enumerate().filter(|(place, _)| !done.has(*place));
        let bound = left().filter_map(|(_, op)| op.ended).min();
        let possible = left().filter(|(_, op)| bound.is_none_or(|bound| op.invoked <= bound));
        let mut choices: Vec<(std::cmp::Reverse<Time>, usize)> = possible
            .map(|(place, op)| (std::cmp::Reverse(op.ended.unwrap_or(Time(u64::MAX))), place))
            .collect();
        choices.sort();
        choices.into_iter().map(|(_, place)| place).collect()
    }

    fn explain(&self, definite_done: usize, state: &M::State, choices: &[usize]) -> String {
        let mut text = format!(
            "{definite_done} of {} answers are explained; then the state is {}, and none of these fits:",
            self.definite,
            self.model.show(state)
        );
        for op in choices.iter().rev().filter_map(|place| self.ops.get(*place)).take(8) {
            let ended = op.ended.map_or_else(|| "?".to_owned(), |ended| ended.to_string());
            text.push_str(&format!("\n    [{}..{ended}] {}", op.invoked, op.op));
            let mismatch = self.model.mismatch(state, &op.op);
            if !mismatch.is_empty() {
                text.push_str(&format!("\n        {mismatch}"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register, as in the literature.
    struct Register;

    #[derive(Clone, Copy)]
    enum Op {
        Write(u32),
        Read(u32),
    }

    impl fmt::Display for Op {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self {
                Self::Write(value) => write!(f, "write {value}"),
                Self::Read(value) => write!(f, "read {value}"),
            }
        }
    }

    impl Model for Register {
        type Op = Op;
        type State = u32;

        fn initial(&self) -> u32 {
            0
        }

        fn step(&self, state: &u32, op: &Op) -> Option<u32> {
            match op {
                Op::Write(value) => Some(*value),
                Op::Read(value) => (value == state).then_some(*state),
            }
        }

        fn show(&self, state: &u32) -> String {
            state.to_string()
        }

        fn is_read(&self, op: &Op) -> bool {
            matches!(op, Op::Read(_))
        }
    }

    fn timed(ops: &[(u64, u64, Op)]) -> Vec<Timed<Op>> {
        let op = |(invoked, ended, op): &(u64, u64, Op)| Timed {
            op: *op,
            invoked: Time(*invoked),
            ended: (*ended != 0).then_some(Time(*ended)),
        };
        ops.iter().map(op).collect()
    }

    #[test]
    fn histories_of_a_register_are_judged() {
        use Op::{Read, Write};
        for (ops, expected) in [
            (vec![(1, 2, Write(1)), (3, 4, Read(1))], true),
            (vec![(1, 2, Write(1)), (3, 4, Read(0))], false),
            // Concurrent with the write: both are right, but not new and then old.
            (vec![(1, 9, Write(1)), (2, 3, Read(1)), (4, 5, Read(1))], true),
            (vec![(1, 9, Write(1)), (2, 3, Read(0)), (4, 5, Read(1))], true),
            (vec![(1, 9, Write(1)), (2, 3, Read(1)), (4, 5, Read(0))], false),
            // Uncertain writes come late, or never.
            (vec![(1, 0, Write(1)), (2, 3, Read(0)), (40, 50, Read(1))], true),
            (vec![(1, 0, Write(1)), (2, 3, Read(0))], true),
            (vec![(1, 0, Write(1)), (2, 3, Read(1)), (4, 5, Read(0))], false),
            (vec![(5, 0, Write(1)), (2, 3, Read(1))], false),
            (vec![], true),
        ] {
            let verdict = check(&Register, &timed(&ops), 1000);
            assert_eq!(verdict == Verdict::Linearizable, expected, "{verdict:?}");
        }
        let verdict = check(&Register, &timed(&[(1, 2, Write(1)), (3, 4, Read(7))]), 1000);
        let Verdict::Violated(what) = verdict else { panic!() };
        assert!(what.contains("1 of 2") && what.contains("read 7"), "{what}");
    }

    #[test]
    fn the_search_gives_up_when_its_budget_is_used_up() {
        let mut ops: Vec<_> = (0..20).map(|value| (1, 100, Op::Write(value))).collect();
        ops.push((200, 201, Op::Read(99)));
        assert_eq!(check(&Register, &timed(&ops), 1000), Verdict::GaveUp);
    }
}
