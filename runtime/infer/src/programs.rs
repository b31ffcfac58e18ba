//! The programs of a session that generate: a token for some sequences at once, and blocks of prompts.

use std::time::Duration;

use linc_device::Device;
use linc_driver::{Entry, Model, Options, Precision, Room, Target, names};
use linc_plan::{Binding, Plan, Role, StateRole};
use linc_session::{Session, SessionError, target};

use crate::error::InferError;

/// What is wanted of a session that generates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Tokens that prompt and continuation may have together.
    pub context: usize,
    /// Sequences that are continued at once.
    pub sequences: usize,
    /// Tokens of a block of a prompt; the machine's own number if not given.
    pub block: Option<usize>,
}

impl Wanted {
    /// One sequence at a time.
    pub fn one(context: usize) -> Self {
        Wanted { context, sequences: 1, block: None }
    }
}

/// The programs of a session that generation runs, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// Tokens that prompt and continuation may have together.
    pub context: usize,
    /// Sequences that are continued at once.
    pub sequences: usize,
    /// Slots of caches and states: one more than sequences where there are several, so that beside a prompt that has been
    /// read in part there is a free one for each row of a batch that is not full.
    slots: usize,
    /// Tokens that caches have room for, at least the context.
    room: usize,
    /// Take a token of some sequences and give the logits of the next; the least number of sequences first.
    decode: Vec<Decode>,
    /// Takes the prompt, if it is not decoded token by token.
    pub(crate) prefill: Option<Prefill>,
}

/// A program that takes a token of some sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decode {
    /// Its number.
    pub(crate) program: usize,
    /// Sequences.
    pub(crate) rows: usize,
}

/// A program that takes a block of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefill {
    /// Its number.
    pub(crate) program: usize,
    /// Tokens of a block.
    pub(crate) tokens: usize,
}

impl Programs {
    /// The program number `decode` of a session, one token of one sequence.
    pub fn of_one(context: usize, decode: usize) -> Self {
        let decode = vec![Decode { program: decode, rows: 1 }];
        Programs { context, sequences: 1, slots: 1, room: context, decode, prefill: None }
    }

    /// Programs for a session, of which they are to be the entries from number `first` on.
    ///
    /// # Errors
    /// [`InferError::Request`] for a context that is no number of positions or longer than the model can be, or too many
    /// sequences; [`SessionError::Compile`] with the place in its text if it cannot generate.
    pub fn plan(
        model: &Model,
        wanted: Wanted,
        options: &Options,
        first: usize,
    ) -> Result<(Self, Vec<(Entry, Options)>), InferError> {
        let Wanted { context, sequences, block } = wanted;
        crate::check_context(model, context)?;
        if !(1..=MOST_SEQUENCES).contains(&sequences) {
            let message = format!("{sequences} sequences at once; expected 1 to {MOST_SEQUENCES}");
            return Err(InferError::request(message, "more are continued one batch after the other"));
        }
        let blocks = linc_driver::prompt_blocks(model, options.target, context);
        let blocks = blocks.map(|blocks| match block {
            Some(tokens) => linc_driver::Blocks { tokens, context: context.next_multiple_of(tokens) },
            None => blocks,
        });
        let slots = if sequences == 1 { 1 } else { sequences + 1 };
        let room = Room { slots, context: blocks.map_or(context, |blocks| blocks.context) };
        // A table of positions is looked up once for a batch, whose sequences are at different ones.
        let has_table = linc_driver::decode_support(model)?.longest.is_some();
        let mut rows: Vec<usize> = std::iter::successors(Some(1), |rows| Some(2 * rows))
            .take_while(|rows| *rows < sequences)
            .collect();
        rows.push(sequences);
        rows.retain(|rows| *rows == 1 || !has_table);
        let one = |batch: usize| Options { batch, seq: 1, ..options.clone() };
        let mut entries: Vec<(Entry, Options)> =
            rows.iter().map(|rows| (Entry::Decode(room), one(*rows))).collect();
        let decode = (first..).zip(rows).map(|(program, rows)| Decode { program, rows }).collect();
        let prefill = blocks.map(|b| Prefill { program: first + entries.len(), tokens: b.tokens });
        entries.extend(blocks.map(|b| (Entry::Prefill { room, tokens: b.tokens }, one(1))));
        Ok((Programs { context, sequences, slots, room: room.context, decode, prefill }, entries))
    }

    /// A session for generation alone.
    ///
    /// # Errors
    /// As [`Programs::plan`] and [`Session::new`].
    pub fn load(
        model: &Model,
        wanted: Wanted,
        precision: Precision,
        device: Box<dyn Device>,
    ) -> Result<(Session, Programs), InferError> {
        let (programs, entries) = Self::plan(model, wanted, &options(precision, target(&*device)), 0)?;
        Ok((session(model, &entries, device)?, programs))
    }

    /// The program for so many sequences, or else the one for most.
    pub(crate) fn decode_for(&self, sequences: usize) -> Option<Decode> {
        self.decode.iter().find(|decode| decode.rows >= sequences).or(self.decode.last()).copied()
    }

    /// Tokens that caches have room for: whole blocks, at least the context.
    pub fn room(&self) -> usize {
        self.room
    }

    /// The number of the program for the fewest sequences.
    pub fn decode_program(&self) -> Option<usize> {
        self.decode.first().map(|decode| decode.program)
    }

    /// Slots of caches and states.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// Bytes that a sequence has of caches and of recurrent states.
    pub fn bytes_per_sequence(&self, session: &Session) -> [u64; 2] {
        let program = self.decode.first().map_or(0, |decode| decode.program);
        bytes_per_sequence(session.executor.plan(program))
    }
}

/// Bytes that a sequence has of caches and of recurrent states, by the plan of a program that decodes.
pub fn bytes_per_sequence(plan: &Plan) -> [u64; 2] {
    [StateRole::KeyValueCache, StateRole::Recurrent].map(|wanted| {
        let is_wanted = |binding: &&Binding| binding.role == Role::State(wanted.clone());
        let slots = |binding: &Binding| binding.shape.first().map_or(1, |slots| *slots as u64);
        plan.bindings.iter().filter(is_wanted).map(|binding| binding.bytes() / slots(binding)).sum()
    })
}

/// Sequences at once, at most: more would be a mistake, as caches are allocated for all of them.
pub const MOST_SEQUENCES: usize = 4096;

/// Options of programs that do not train.
pub fn options(precision: Precision, target: Target) -> Options {
    Options { precision, narrow_weights: true, target, ..Options::new(1, 1) }
}

/// A session of programs of generation and scoring.
///
/// # Errors
/// As [`Session::new`].
pub fn session(
    model: &Model,
    entries: &[(Entry, Options)],
    device: Box<dyn Device>,
) -> Result<Session, InferError> {
    let session =
        Session::new(model, entries, device, &mut || Ok(())).map_err(|error: SessionError| match error {
            SessionError::DoesNotFit { error, table, .. } => SessionError::DoesNotFit {
                error,
                table,
                help: "give a smaller --context, or fewer sequences at once",
            },
            other => other,
        })?;
    Ok(session)
}

/// A token of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its id.
    pub token: u32,
    /// Tokens of the sequence before it.
    pub position: usize,
    /// Where the sequence's caches and states are, below the number of sequences; no two rows have the same.
    pub slot: usize,
}

impl Programs {
    /// Feeds a token of each sequence; the rows of logits, of all ids that the model has. Rows that the program has beyond
    /// them go to `idle` slots, of which there is one for each.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn step(
        &self,
        session: &mut Session,
        rows: &[Row],
        idle: &mut dyn Iterator<Item = usize>,
    ) -> Result<Vec<f32>, InferError> {
        let mut logits = vec![];
        self.each_part(session, rows, idle, &mut |session, Decode { program, rows }, now| {
            session.executor.run(program)?;
            let mut found = session.executor.output(program, names::LOGITS)?;
            found.truncate(found.len() / rows * now);
            match logits.is_empty() {
                true => logits = found,
                false => logits.extend(found),
            }
            Ok(())
        })?;
        Ok(logits)
    }

    /// Feeds a token of each sequence as [`Programs::step`]; `each` sees the plan that runs and the time of each of its steps.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn profile_step(
        &self,
        session: &mut Session,
        rows: &[Row],
        each: &mut dyn FnMut(&Plan, &[Duration]),
    ) -> Result<(), InferError> {
        self.each_part(session, rows, &mut std::iter::empty(), &mut |session, Decode { program, .. }, _| {
            let times = session.executor.step_times(program)?;
            each(session.executor.plan(program), &times);
            Ok(())
        })
    }

    /// Feeds a token of each sequence to the programs that take them; `run` gets each program, and how many of its rows count.
    fn each_part(
        &self,
        session: &mut Session,
        rows: &[Row],
        idle: &mut dyn Iterator<Item = usize>,
        run: &mut dyn FnMut(&mut Session, Decode, usize) -> Result<(), InferError>,
    ) -> Result<(), InferError> {
        let mut rest = rows;
        while let Some(decode) = self.decode_for(rest.len()).filter(|_| !rest.is_empty()) {
            let Decode { program, rows } = decode;
            let (now, later) = rest.split_at(rows.min(rest.len()));
            let padding = (now.len()..rows).filter_map(|_| idle.next());
            let padded: Vec<Row> =
                now.iter().copied().chain(padding.map(|slot| Row { token: 0, position: 0, slot })).collect();
            let numbers =
                |of: fn(&Row) -> usize| -> Vec<i32> { padded.iter().map(|row| of(row) as i32).collect() };
            let x = &mut session.executor;
            x.write_input(program, names::TOKENS, bytemuck::cast_slice(&numbers(|row| row.token as usize)))?;
            x.write_input(program, names::POSITION, bytemuck::cast_slice(&numbers(|row| row.position)))?;
            x.write_input(program, names::SLOT, bytemuck::cast_slice(&numbers(|row| row.slot)))?;
            run(session, decode, now.len())?;
            rest = later;
        }
        Ok(())
    }

    /// Feeds all tokens of a prompt to a slot as [`Programs::read_prompt`]; `each` sees the plans that run and the time of each of
    /// their steps.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn profile_prompt(
        &self,
        session: &mut Session,
        ids: &[u32],
        slot: usize,
        each: &mut dyn FnMut(&Plan, &[Duration]),
    ) -> Result<(), InferError> {
        let Some(prefill) = self.prefill else {
            return (0..).zip(ids).try_for_each(|(position, token)| {
                self.profile_step(session, &[Row { token: *token, position, slot }], each)
            });
        };
        for (number, part) in ids.chunks(prefill.tokens).enumerate() {
            self.feed(session, prefill, part, number * prefill.tokens, slot)?;
            let times = session.executor.step_times(prefill.program)?;
            each(session.executor.plan(prefill.program), &times);
        }
        Ok(())
    }

    /// Feeds all tokens of a prompt to a slot, in blocks where the model takes them.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn read_prompt(&self, session: &mut Session, ids: &[u32], slot: usize) -> Result<(), InferError> {
        if let Some(prefill) = self.prefill {
            let blocks = ids.chunks(prefill.tokens).enumerate();
            return blocks
                .map(|(i, part)| (part, i * prefill.tokens))
                .try_for_each(|(part, position)| self.read(session, prefill, part, position, slot));
        }
        for (position, token) in ids.iter().enumerate() {
            self.step(session, &[Row { token: *token, position, slot }], &mut std::iter::empty())?;
        }
        Ok(())
    }

    /// Takes a block of a prompt, no longer than the program takes, from a position on.
    pub(crate) fn read(
        &self,
        session: &mut Session,
        prefill: Prefill,
        part: &[u32],
        position: usize,
        slot: usize,
    ) -> Result<(), InferError> {
        self.feed(session, prefill, part, position, slot)?;
        Ok(session.executor.run(prefill.program)?)
    }

    /// Writes the inputs of a block.
    fn feed(
        &self,
        session: &mut Session,
        Prefill { program, tokens }: Prefill,
        part: &[u32],
        position: usize,
        slot: usize,
    ) -> Result<(), InferError> {
        let x = &mut session.executor;
        let mut block: Vec<i32> = part.iter().map(|id| *id as i32).collect();
        // What fills the last block up must be as finite as what is there.
        block.resize(tokens, block.last().copied().unwrap_or(0));
        x.write_input(program, names::TOKENS, bytemuck::cast_slice(&block))?;
        x.write_input(program, names::POSITION, bytemuck::bytes_of(&(position as i32)))?;
        x.write_input(program, names::SLOT, bytemuck::bytes_of(&(slot as i32)))?;
        // Only tables of positions ask for them; those of tokens that do not exist are as good as any.
        if x.plan(program).binding(Role::Input, names::POSITIONS).is_some() {
            let last = position + part.len().max(1) - 1;
            let positions: Vec<i32> = (position..).take(tokens).map(|at| at.min(last) as i32).collect();
            x.write_input(program, names::POSITIONS, bytemuck::cast_slice(&positions))?;
        }
        // Only layers that keep a state of all tokens ask for it.
        if x.plan(program).binding(Role::Input, names::TOKEN_MASK).is_some() {
            let mut mask = vec![1.0_f32; part.len()];
            mask.resize(tokens, 0.0);
            x.write_input(program, names::TOKEN_MASK, bytemuck::cast_slice(&mask))?;
        }
        Ok(())
    }
}
