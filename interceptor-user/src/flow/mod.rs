//! Accepting, identifying and pumping flows.
