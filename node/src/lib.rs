//! Composition: configuration, start order, listeners, signals, health; the binary everpost.
