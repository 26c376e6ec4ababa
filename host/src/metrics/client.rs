//! What a Kafka client says of itself, as plain numbers.

/// Figures of one client, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientFigures {
    /// Requests that could not be sent.
    pub send_errors: u64,
    /// Answers that could not be read.
    pub receive_errors: u64,
    /// Requests that were not answered in time.
    pub timeouts: u64,
    /// Connections that ended.
    pub disconnects: u64,
    /// Records in the client's queues now.
    pub queue_records: u64,
    /// Bytes in the client's queues now.
    pub queue_bytes: u64,
    /// Connections to brokers that are up now.
    pub brokers_up: u64,
}

impl ClientFigures {
    /// Adds another client's figures.
    pub fn add(&mut self, other: &Self) {
        self.send_errors += other.send_errors;
        self.receive_errors += other.receive_errors;
        self.timeouts += other.timeouts;
        self.disconnects += other.disconnects;
        self.queue_records += other.queue_records;
        self.queue_bytes += other.queue_bytes;
        self.brokers_up += other.brokers_up;
    }
}

/// The figures of a client that may be made anew, which starts its counters at 0 again: ours go on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientTotals {
    last: ClientFigures,
    total: ClientFigures,
}

impl ClientTotals {
    /// Takes what the client says now.
    pub fn note(&mut self, now: ClientFigures) {
        let grown = |now: u64, last: u64| if now >= last { now - last } else { now };
        let (last, total) = (&self.last, &self.total);
        self.total = ClientFigures {
            send_errors: total.send_errors + grown(now.send_errors, last.send_errors),
            receive_errors: total.receive_errors + grown(now.receive_errors, last.receive_errors),
            timeouts: total.timeouts + grown(now.timeouts, last.timeouts),
            disconnects: total.disconnects + grown(now.disconnects, last.disconnects),
            ..now
        };
        self.last = now;
    }

    /// The counters over all clients of this name so far, and the gauges of the last.
    pub fn figures(&self) -> ClientFigures {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_go_on_when_a_client_is_made_anew() {
        let figures = |timeouts, queue_records| ClientFigures { timeouts, queue_records, ..ClientFigures::default() };
        let mut totals = ClientTotals::default();
        totals.note(figures(3, 10));
        totals.note(figures(5, 20));
        totals.note(figures(1, 0));
        assert_eq!(totals.figures(), figures(6, 0));
    }
}
