//! The built-in dataset `stories`: short tales, written by a small grammar, the same in every build and on every machine.
//!
//! Each tale hides a thing in a place, looks for it elsewhere, and at its end comes back to the place and names the
//! thing again: a byte-level model learns to spell within a minute, and what it writes shows whether it also looks
//! back. The text depends on nothing but this file, so that figures of runs on it can be compared over time.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;

use super::rng::{Use, stream};

/// Tales of the dataset, of about 500 bytes each.
const TALES: u64 = 4000;

const NAMES: [&str; 32] = [
    "Ada", "Ben", "Cleo", "Dara", "Emil", "Fay", "Gus", "Hana", "Ida", "Jon", "Kira", "Leo", "Mina", "Noor",
    "Olga", "Pia", "Quin", "Rosa", "Sam", "Tara", "Ugo", "Vera", "Wim", "Xenia", "Yara", "Zeno", "Alma",
    "Bruno", "Edda", "Falk", "Greta", "Hugo",
];
const TRAITS: [&str; 12] = [
    "patient", "curious", "brave", "quiet", "careful", "cheerful", "stubborn", "clever", "shy", "proud",
    "sleepy", "kind",
];
const HOMES: [&str; 10] = [
    "a village by the river",
    "a house on the hill",
    "a town with seven bridges",
    "a farm at the end of the road",
    "a hut by the harbour",
    "a tower without stairs",
    "a room above the bakery",
    "a hut in the forest",
    "a street that smelled of rain",
    "a mill with a broken wheel",
];
const COLOURS: [&str; 12] = [
    "red", "green", "blue", "yellow", "silver", "golden", "black", "white", "brown", "purple", "grey",
    "orange",
];
const THINGS: [&str; 24] = [
    "key", "lantern", "drum", "button", "kite", "bell", "boat", "coin", "book", "ring", "whistle", "hat",
    "cup", "ball", "feather", "stone", "ribbon", "mirror", "candle", "spoon", "map", "pencil", "shell",
    "clock",
];
const PLACES: [&str; 24] = [
    "under the bridge",
    "behind the oven",
    "in the old well",
    "on the roof",
    "beside the gate",
    "in the hollow tree",
    "under the bed",
    "behind the curtain",
    "in the garden",
    "between two walls",
    "at the foot of the hill",
    "in the cellar",
    "near the pond",
    "under a flat stone",
    "in the hay",
    "behind the mill",
    "on the window sill",
    "inside a boot",
    "in the drawer",
    "among the reeds",
    "under the stairs",
    "in the church",
    "by the fence",
    "on the highest shelf",
];
const ANIMALS: [&str; 14] = [
    "fox", "crow", "cat", "dog", "goat", "mouse", "owl", "hare", "frog", "horse", "hedgehog", "snail",
    "duck", "bee",
];
const WEATHER: [&str; 8] = [
    "It rained all morning.",
    "The sun was warm.",
    "Snow lay on the fields.",
    "There was a strong wind.",
    "Fog came up from the river.",
    "The day was long and bright.",
    "It was almost dark.",
    "The air was still.",
];

/// All tales, one document each.
pub(super) fn documents() -> Vec<String> {
    (0..TALES).map(|number| Tale::draw(number).text()).collect()
}

/// Draws a word from a list.
fn pick<T: Copy>(rng: &mut ChaCha8Rng, words: &[T]) -> T {
    // Lists are short: the remainder of 32 bits favours no word by more than one in a hundred million.
    words[rng.next_u32() as usize % words.len()]
}

/// Draws two different words from a list.
fn pick_two<T: Copy + PartialEq>(rng: &mut ChaCha8Rng, words: &[T]) -> (T, T) {
    let first = pick(rng, words);
    loop {
        let second = pick(rng, words);
        if second != first {
            return (first, second);
        }
    }
}

/// What a tale is about.
struct Tale {
    hero: &'static str,
    friend: &'static str,
    thing: String,
    place: &'static str,
    elsewhere: &'static str,
    animal: &'static str,
    rng: ChaCha8Rng,
}

impl Tale {
    fn draw(number: u64) -> Tale {
        let mut rng = stream(0, Use::Stories, number);
        let (hero, friend) = pick_two(&mut rng, &NAMES);
        let (place, elsewhere) = pick_two(&mut rng, &PLACES);
        let thing = format!("{} {}", pick(&mut rng, &COLOURS), pick(&mut rng, &THINGS));
        let animal = pick(&mut rng, &ANIMALS);
        Tale { hero, friend, thing, place, elsewhere, animal, rng }
    }

    fn text(mut self) -> String {
        let (intent, trait_) = (self.opening(), pick(&mut self.rng, &TRAITS));
        let (hiding, search, end) = (self.hiding(), self.search(), self.end());
        let weather = pick(&mut self.rng, &WEATHER);
        let Tale { hero, friend, .. } = self;
        format!(
            "{intent} {hero} was {trait_}, and {friend} was a friend. {weather} {hiding}\n{search}\n{end}\n"
        )
    }

    fn opening(&mut self) -> String {
        let home = pick(&mut self.rng, &HOMES);
        let hero = self.hero;
        match self.rng.next_u32() % 3 {
            0 => format!("Once upon a time {hero} lived in {home}."),
            1 => format!("In {home} there lived somebody called {hero}."),
            _ => format!("This is the tale of {hero}, who lived in {home}."),
        }
    }

    fn hiding(&mut self) -> String {
        let Tale { hero, friend, thing, place, .. } = self;
        match self.rng.next_u32() % 4 {
            0 => format!("One day {hero} put the {thing} {place} and went to see {friend}."),
            1 => format!("\"Nobody looks {place},\" said {hero}, and left the {thing} there."),
            2 => format!("{hero} had a {thing} and kept it {place}, where nobody would look."),
            _ => format!("On the way to {friend}, {hero} lost a {thing}. It fell down and lay {place}."),
        }
    }

    fn search(&mut self) -> String {
        let Tale { hero, friend, elsewhere, animal, .. } = self;
        let first = match self.rng.next_u32() % 3 {
            0 => format!(
                "In the evening {friend} asked for it. They looked {elsewhere}, but it was not there."
            ),
            1 => format!("When {hero} came back, a {animal} sat {elsewhere} and looked guilty."),
            _ => format!("The next morning {hero} had forgotten where it was and searched {elsewhere}."),
        };
        let second = match self.rng.next_u32() % 4 {
            0 => format!("\"I have not seen it,\" said the {animal}. \"Try to remember.\""),
            1 => format!("The {animal} laughed and would not say a word."),
            2 => format!("{friend} asked the {animal}, who only shook its head."),
            _ => format!("They asked a {animal}, then another {animal}, and nobody knew."),
        };
        format!("{first} {second}")
    }

    fn end(&mut self) -> String {
        let Tale { hero, friend, thing, place, animal, .. } = self;
        match self.rng.next_u32() % 4 {
            0 => format!("At last {hero} looked {place}, and there was the {thing}. {friend} was glad."),
            1 => format!("Then the {animal} went {place} and brought the {thing} back to {hero}."),
            2 => format!(
                "\"The {thing}!\" cried {friend}. It had been {place} all the time, and {hero} smiled."
            ),
            _ => format!("So {hero} and {friend} went {place} together, found the {thing}, and went home."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_never_changes() {
        let documents = documents();
        let mut checksum = crc32fast::Hasher::new();
        documents.iter().for_each(|text| checksum.update(text.as_bytes()));
        let bytes: usize = documents.iter().map(String::len).sum();
        // Figures in the README and in docs/ were measured on this very text.
        assert_eq!(
            (documents.len(), bytes, checksum.finalize()),
            (4000, 1638798, 2773517745),
            "{}",
            documents[0]
        );
    }

    #[test]
    fn the_end_of_a_tale_asks_for_its_beginning() {
        for number in 0..50 {
            let tale = Tale::draw(number);
            let (thing, place) = (tale.thing.clone(), tale.place);
            let text = tale.text();
            for words in [thing.as_str(), place] {
                assert_eq!(text.matches(words).count(), 2, "{words} in {text}");
            }
        }
    }
}
