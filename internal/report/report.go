// Package report is how the verbs tell what they do while they do it. They
// know nothing of terminals, logs or formats: cmd implements Reporter, and
// tests record. A Reporter and its Tasks are called from several goroutines.
package report

// Reporter receives notices and the beginning of tasks.
type Reporter interface {
	// Info is for what an operator wants to find in a log next morning.
	Info(message string, fields ...Field)
	// Warn is for what an operator should do something about.
	Warn(message string, fields ...Field)
	// Tasks announces that so many tasks follow, of so many bytes in all, an
	// estimate. It need not be called.
	Tasks(count int, expectedBytes int64)
	// Task begins a piece of work that moves bytes, such as the capture of one
	// database. expectedBytes is an estimate; 0 when there is none.
	Task(name string, expectedBytes int64) Task
}

// Task is a piece of work in progress.
type Task interface {
	// Progress tells how many bytes were moved so far.
	Progress(bytes int64)
	// End ends the task. It must be called once.
	End(err error)
}

// Field is a detail of a notice.
type Field struct {
	Key   string
	Value any
}

// F makes a Field.
func F(key string, value any) Field { return Field{key, value} }

// Discard is a Reporter that tells nobody.
type Discard struct{}

// Info does nothing.
func (Discard) Info(string, ...Field) {}

// Warn does nothing.
func (Discard) Warn(string, ...Field) {}

// Tasks does nothing.
func (Discard) Tasks(int, int64) {}

// Task returns a task that tells nobody.
func (Discard) Task(string, int64) Task { return discardTask{} }

type discardTask struct{}

func (discardTask) Progress(int64) {}
func (discardTask) End(error)      {}
