//! Runs of agents: their cgroups, and who a process is.
