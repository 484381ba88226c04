// Package store says what a place for backup sets must be able to do. One
// package per kind of place lives below it, and storetest is the suite that
// each kind must pass.
//
// A store holds objects under slash-separated keys and knows nothing of what
// they mean. An object is invisible until it is committed and durable when it
// is (the ground that B1 and B5 stand on); it is never changed afterwards.
package store
