// Package storetest is the suite that defines a store.Store. A new kind of
// store is done when Run passes; if it is a store.Local too, Run tests that as
// well. What is special about one kind is tested beside that kind.
package storetest
