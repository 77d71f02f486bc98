//! A terminal played on a terminal.
//!
//! While it is drawn, a line of text between would spoil the picture. So what happens
//! elsewhere in the session meanwhile is kept, and shown when the terminal is over.

use super::filter::Filter;
use super::lines::Lines;
use super::terminals::{Size, Terminal};
use super::{channel, is_drawing, is_end};
use crate::replay::{Entry, Item, Timeline};

/// Things that are kept while a terminal is drawn; more are counted.
const KEPT_LIMIT: usize = 10_000;

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Step {
    /// Show it as text.
    Item(Box<Item>),
    /// From now on the terminal is drawn: it had this size.
    Begin(Size),
    /// Send this.
    Draw(String),
    /// Send this; text follows.
    End(String),
    /// So many things more happened meanwhile.
    More(u64),
}

/// Plays one terminal of a session.
#[derive(Debug)]
pub struct Player {
    terminal: Terminal,
    timeline: Timeline,
    filter: Filter,
    /// Of other terminals.
    lines: Lines,
    draws: bool,
    kept: Vec<Item>,
    more: u64,
}

impl Player {
    /// Plays `terminal`; what else there is, as `timeline` has it.
    #[must_use]
    pub fn new(terminal: Terminal, timeline: Timeline) -> Self {
        Self {
            terminal,
            timeline,
            filter: Filter::default(),
            lines: Lines::default(),
            draws: false,
            kept: Vec::new(),
            more: 0,
        }
    }

    /// What is to be done for the next entry.
    pub fn push(&mut self, entry: &Entry) -> Vec<Step> {
        let own = channel(entry) == Some(self.terminal.channel);
        if own && is_drawing(entry) {
            let text = self.filter.push(&entry.data);
            let begin = !std::mem::replace(&mut self.draws, true);
            let begin = begin.then_some(Step::Begin(self.terminal.size));
            return begin.into_iter().chain([Step::Draw(text)]).collect();
        }
        // The terminal itself shows what was entered, and why it was refused.
        let seen = self.draws && own && entry.kind == "command";
        let mut items = Vec::new();
        for entry in self.lines.push(entry.clone()) {
            items.extend(self.timeline.push(&entry).filter(|_| !seen));
        }
        if !self.draws {
            return items.into_iter().map(boxed).collect();
        }
        let over = (own && is_end(entry)) || entry.kind == "close";
        for item in items {
            match self.kept.len() < KEPT_LIMIT || over {
                true => self.kept.push(item),
                false => self.more += 1,
            }
        }
        match over {
            true => self.finish(),
            false => Vec::new(),
        }
    }

    /// Nothing more comes.
    pub fn finish(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        if std::mem::take(&mut self.draws) {
            steps.push(Step::End(self.filter.finish()));
        }
        steps.extend(std::mem::take(&mut self.kept).into_iter().map(boxed));
        for entry in self.lines.finish() {
            steps.extend(self.timeline.push(&entry).map(boxed));
        }
        let more = std::mem::take(&mut self.more);
        steps.extend((more > 0).then_some(Step::More(more)));
        steps
    }
}

fn boxed(item: Item) -> Step {
    Step::Item(Box::new(item))
}
