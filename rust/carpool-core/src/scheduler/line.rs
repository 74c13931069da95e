//! A line through what batches took: the part that is the same for all of them, that of each request, that of each unit of
//! cost.

/// One batch that ran.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) size: f64,
    pub(super) cost: f64,
    pub(super) run: f64,
    /// Counted in batches.
    pub(super) at: u64,
}

/// What the line says of a batch like `one`.
pub(super) fn on(line: &[f64; 3], one: &Sample) -> f64 {
    (line[0] + line[1] * one.size + line[2] * one.cost).max(1.0)
}

/// `fixed + per request + per cost` through samples with weights, by reweighted least squares (Huber). Relative errors
/// count, since a run's noise grows with it. None of the three is below zero; the last is, unless `by_cost`, zero.
pub(super) fn straight_line(samples: &[(Sample, f64)], by_cost: bool) -> [f64; 3] {
    let total: f64 = samples.iter().map(|(_, weight)| weight).sum();
    if total <= 0.0 {
        return [0.0; 3];
    }
    let mean = |of: fn(&Sample) -> f64| {
        samples
            .iter()
            .map(|(one, weight)| of(one) * weight)
            .sum::<f64>()
            / total
    };
    // In units of the means, so that all numbers are about 1.
    let size = mean(|one| one.size).max(1e-9);
    let cost = mean(|one| one.cost).max(1e-9);
    let run = mean(|one| one.run).max(1e-9);
    let rows: Vec<([f64; 3], f64, f64)> = samples
        .iter()
        .map(|(one, weight)| {
            let row = [1.0, one.size / size, one.cost / cost];
            (row, one.run / run, *weight)
        })
        .collect();
    let mut used = [true, true, by_cost];
    let mut line = [0.0; 3];
    // Twice for the outliers, and once more for each part that would be below zero.
    let mut rounds = 0;
    while rounds < 4 {
        let mut matrix = [[0.0; 4]; 3];
        for (row, run, weight) in &rows {
            let says: f64 = (0..3).map(|at| line[at] * row[at]).sum();
            let far = if rounds == 0 {
                0.0
            } else {
                (run - says).abs() / says.max(1e-9)
            };
            // Huber's weight, at three tenths of the run.
            // Relative to the line once there is one: what is far too fast would count most.
            let scale = if rounds == 0 {
                *run
            } else {
                says.max(0.1 * run)
            };
            let weight = weight * (0.3 / far.max(0.3)) / (scale * scale);
            for i in 0..3 {
                for j in 0..3 {
                    matrix[i][j] += weight * row[i] * row[j];
                }
                matrix[i][3] += weight * row[i] * run;
            }
        }
        // Where the sizes differ too little to tell, half of the run is fixed.
        let prior = 0.05;
        let share = if by_cost { 0.25 } else { 0.5 };
        for (at, share) in [(1, share), (2, share)] {
            matrix[at][at] += prior;
            matrix[at][3] += prior * share;
        }
        line = solve(matrix, used);
        let worst = (0..3)
            .filter(|&at| used[at])
            .min_by(|&a, &b| line[a].total_cmp(&line[b]));
        match worst.filter(|&at| line[at] < 0.0) {
            Some(at) => used[at] = false,
            None => rounds += 1,
        }
    }
    [line[0] * run, line[1] * run / size, line[2] * run / cost]
}

/// Gauss's elimination with pivots, of the used rows and columns.
fn solve(mut matrix: [[f64; 4]; 3], used: [bool; 3]) -> [f64; 3] {
    let at: Vec<usize> = (0..3).filter(|&at| used[at]).collect();
    for (done, &column) in at.iter().enumerate() {
        let best = at[done..]
            .iter()
            .copied()
            .max_by(|&a, &b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()))
            .unwrap_or(column);
        matrix.swap(column, best);
        let pivot = matrix[column];
        if pivot[column].abs() < 1e-12 {
            continue;
        }
        for &row in at.iter().filter(|&&row| row != column) {
            let factor = matrix[row][column] / pivot[column];
            for (value, of) in matrix[row].iter_mut().zip(pivot) {
                *value -= factor * of;
            }
        }
    }
    let mut solution = [0.0; 3];
    for column in at {
        if matrix[column][column].abs() >= 1e-12 {
            solution[column] = matrix[column][3] / matrix[column][column];
        }
    }
    solution
}
