//! Values of the shipped types, each stored once and known by a small number, so that a state of the exploration
//! stays a few hundred bytes.

use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

/// Number of an interned value; equal values have equal numbers.
pub type Id = u16;

/// Stores each distinct value once.
#[derive(Debug)]
pub struct Interner<T> {
    ids: HashMap<Rc<T>, Id>,
    values: Vec<Rc<T>>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { ids: HashMap::new(), values: Vec::new() }
    }
}

impl<T: Eq + Hash> Interner<T> {
    /// The number of `value`.
    ///
    /// # Panics
    /// With more than 65 535 distinct values: the configuration is not bounded.
    pub fn id(&mut self, value: T) -> Id {
        if let Some(id) = self.ids.get(&value) {
            return *id;
        }
        let Ok(id) = Id::try_from(self.values.len()) else {
            panic!("more than {} distinct values: the configuration is not bounded", Id::MAX);
        };
        let value = Rc::new(value);
        self.values.push(Rc::clone(&value));
        self.ids.insert(value, id);
        id
    }

    /// The value with number `id`.
    pub fn get(&self, id: Id) -> &Rc<T> {
        &self.values[usize::from(id)]
    }
}
