// Package fault is the project's error vocabulary: what kind of thing went
// wrong, so that a caller can branch and the command line can choose an exit
// code, and what the operator should do next.
//
// An error text says the step that failed with the object in hand, lower case
// and without "failed to". The hint is a field of its own and is printed on a
// line of its own. Neither ever carries a secret (invariant S1).
package fault

import "fmt"

// Kind says what a caller can do about an error.
type Kind int

const (
	// Failed is anything that did not work and has no kind of its own.
	Failed Kind = iota
	// Usage is a wrong command line or configuration.
	Usage
	// NotFound is a store or set that does not exist.
	NotFound
	// Locked is a store that another run holds.
	Locked
	// WrongKey is a key that does not open the set.
	WrongKey
	// Integrity is stored data that is not what was captured.
	Integrity
	// Precondition is a version, privilege, tool or amount of space that the
	// run needs and does not have; nothing was touched.
	Precondition
	// Unavailable is a server that could not be reached, or was lost: trying
	// again later is safe and may work.
	Unavailable
)

// Error is an error with a kind and an optional hint.
type Error struct {
	Kind Kind
	Hint string // what to do next, one sentence or command; empty when there is nothing to add
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// New returns an error of the kind. The format may use %w.
func New(kind Kind, hint, format string, args ...any) error {
	return &Error{Kind: kind, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// Kept says what an interrupted run leaves to go on with, and How. It is said also
// where nothing else of the interruption is.
type Kept struct{ What, How string }

func (k *Kept) Error() string { return k.What }

// Keeping returns a Kept whose hint is how to go on.
func Keeping(how, what string) error {
	return New(Failed, how, "%w", &Kept{What: what, How: how})
}

// KindOf returns the kind of the outermost Error in err's tree that is not
// Failed, and Failed where there is none.
func KindOf(err error) Kind {
	kind := Failed
	walk(err, func(e *Error) bool {
		kind = e.Kind
		return kind == Failed
	})
	return kind
}

// Hints returns the hints in err's tree, outermost first, each once.
func Hints(err error) []string {
	var hints []string
	seen := map[string]bool{}
	walk(err, func(e *Error) bool {
		if e.Hint != "" && !seen[e.Hint] {
			seen[e.Hint] = true
			hints = append(hints, e.Hint)
		}
		return true
	})
	return hints
}

// Is reports whether err is of the kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// walk visits every Error in err's tree until visit returns false.
func walk(err error, visit func(*Error) bool) bool {
	if err == nil {
		return true
	}
	if e, ok := err.(*Error); ok && !visit(e) {
		return false
	}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		return walk(u.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, e := range u.Unwrap() {
			if !walk(e, visit) {
				return false
			}
		}
	}
	return true
}
