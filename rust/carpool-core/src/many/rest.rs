//! What of a list has not been let in yet: in order, and where keys differ in the order of each key.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::Item;

/// Items and their places in the list.
pub(crate) enum Rest<P> {
    /// All of one key; the first has this place.
    Alike(usize, VecDeque<Item<P>>),
    Mixed(Mixed<P>),
}

/// Those of several keys.
pub(crate) struct Mixed<P> {
    by_key: HashMap<u64, VecDeque<(usize, Item<P>)>>,
    /// The key of the first of each key, by its place.
    firsts: BTreeMap<usize, u64>,
    len: usize,
}

impl<P> Rest<P> {
    /// All of a list.
    pub(crate) fn of(items: Vec<Item<P>>) -> Self {
        let same = |pair: &[Item<P>]| pair[0].key == pair[1].key;
        if items.windows(2).all(same) {
            return Self::Alike(0, items.into());
        }
        let (mut by_key, mut firsts, len) = (HashMap::new(), BTreeMap::new(), items.len());
        for (place, item) in items.into_iter().enumerate() {
            let own: &mut VecDeque<_> = by_key.entry(item.key).or_default();
            if own.is_empty() {
                firsts.insert(place, item.key);
            }
            own.push_back((place, item));
        }
        Self::Mixed(Mixed {
            by_key,
            firsts,
            len,
        })
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Alike(_, items) => items.len(),
            Self::Mixed(mixed) => mixed.len,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key of the first of all.
    pub(crate) fn first(&self) -> Option<u64> {
        match self {
            Self::Alike(_, items) => items.front().map(|item| item.key),
            Self::Mixed(mixed) => mixed.firsts.first_key_value().map(|(_, &key)| key),
        }
    }

    /// What the first of a key costs.
    pub(crate) fn cost(&self, key: u64) -> Option<u64> {
        let first = match self {
            Self::Alike(_, items) => items.front().filter(|item| item.key == key),
            Self::Mixed(mixed) => mixed.by_key.get(&key)?.front().map(|(_, item)| item),
        };
        first.map(|item| item.cost)
    }

    /// Takes the first of a key, with its place.
    pub(crate) fn pop(&mut self, key: u64) -> Option<(usize, Item<P>)> {
        match self {
            Self::Alike(place, items) => {
                let item = items.pop_front()?;
                *place += 1;
                Some((*place - 1, item))
            }
            Self::Mixed(mixed) => mixed.pop(key),
        }
    }

    /// Takes all, in any order.
    pub(crate) fn drain(&mut self) -> Vec<(usize, Item<P>)> {
        match std::mem::replace(self, Self::Alike(0, VecDeque::new())) {
            Self::Alike(place, items) => (place..).zip(items).collect(),
            Self::Mixed(mixed) => mixed.by_key.into_values().flatten().collect(),
        }
    }
}

impl<P> Mixed<P> {
    fn pop(&mut self, key: u64) -> Option<(usize, Item<P>)> {
        let own = self.by_key.get_mut(&key)?;
        let (place, item) = own.pop_front()?;
        self.firsts.remove(&place);
        match own.front() {
            Some(&(next, _)) => drop(self.firsts.insert(next, key)),
            None => drop(self.by_key.remove(&key)),
        }
        self.len -= 1;
        Some((place, item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(keys: &[u64]) -> Vec<Item<usize>> {
        let item = |(payload, &key)| Item {
            key,
            cost: payload as u64,
            ..Item::of(payload)
        };
        keys.iter().enumerate().map(item).collect()
    }

    #[test]
    fn in_order_and_by_key() {
        let mut rest = Rest::of(items(&[5, 7, 5, 9, 7]));
        assert_eq!((rest.len(), rest.first()), (5, Some(5)));
        assert_eq!((rest.cost(7), rest.cost(6)), (Some(1), None));
        let places =
            [7, 5, 7, 7].map(|key| rest.pop(key).map(|(place, item)| (place, item.payload)));
        assert_eq!(places, [Some((1, 1)), Some((0, 0)), Some((4, 4)), None]);
        assert_eq!((rest.len(), rest.first()), (2, Some(5)));
        rest.pop(5);
        assert_eq!(rest.first(), Some(9));
        let left = rest.drain();
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].0, left[0].1.payload), (3, 3));
        assert!(rest.is_empty() && rest.first().is_none() && rest.pop(9).is_none());
    }

    #[test]
    fn of_one_key() {
        let mut rest = Rest::of(items(&[3, 3, 3]));
        assert!(matches!(rest, Rest::Alike(..)));
        assert_eq!(
            (rest.first(), rest.cost(3), rest.cost(4)),
            (Some(3), Some(0), None)
        );
        assert_eq!(rest.pop(3).map(|(place, _)| place), Some(0));
        let places: Vec<_> = rest.drain().into_iter().map(|(place, _)| place).collect();
        assert_eq!(places, [1, 2]);
        assert!(Rest::<usize>::of(Vec::new()).is_empty());
    }
}
