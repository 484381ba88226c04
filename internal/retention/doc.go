// Package retention decides which backup sets may go, and removes them.
//
// It is careful in one direction only: whatever it does not understand stays. A
// set goes when every database in it has newer sets that the policy keeps, when
// the newest of those was read and found sound, and when no set that stays
// refers to it.
package retention
