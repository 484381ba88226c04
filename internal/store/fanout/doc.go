// Package fanout makes one store of several: what a run writes goes to all of
// them at once.
//
// A store that fails, or that keeps the others waiting for longer than it may,
// falls behind: nothing more is written to it in this run, so that no manifest
// ever reaches it and the set does not exist there. The run goes on while as
// many stores as the quorum asks for are left; copying the set later brings the
// others up to date.
//
// What is read comes from the first store that has it. A listing is that of all
// stores together: use Each to ask each of them.
//
// Not promised: that one of several writers of the same key wins, when they race
// without the stores' locks.
package fanout
