package console

import (
	"io"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/vbauerster/mpb/v8"

	"dbbackup/internal/bytesize"
	"dbbackup/internal/fault"
	"dbbackup/internal/report"
)

// Reporter is a report.Reporter that writes log lines, and on a terminal also one bar
// per task and one for their total.
type Reporter struct {
	log     *logrus.Logger
	out     io.Writer
	json    bool
	hasBars bool // on a terminal, where somebody looks

	mu    sync.Mutex
	bars  *mpb.Progress // nil before the first task and after close
	total *totalBar     // nil unless several tasks were announced
	tasks announced
}

// announced is what Tasks said.
type announced struct {
	count    int
	expected int64
}

// Options are how a Reporter writes.
type Options struct {
	Format  string // text or json
	Quiet   bool   // warnings only, and no bars
	Columns int    // of the terminal; 0 where there is none
	Bars    bool   // on a terminal, in text
}

// NewReporter returns a Reporter that writes to w. The caller closes it.
func NewReporter(w io.Writer, o Options) (*Reporter, error) {
	r := &Reporter{log: logrus.New(), out: w, hasBars: o.Bars && o.Columns > 0 && !o.Quiet && o.Format == "text"}
	r.log.SetOutput(w)
	if o.Quiet {
		r.log.SetLevel(logrus.WarnLevel)
	}
	switch o.Format {
	case "json":
		r.json = true
		r.log.SetFormatter(jsonLines{})
	case "text":
		r.log.SetFormatter(textLines{columns: o.Columns})
	default:
		return nil, fault.New(fault.Usage, "", "--log-format: %q is neither text nor json", o.Format)
	}
	return r, nil
}

// JSON reports whether the lines are JSON.
func (r *Reporter) JSON() bool { return r.json }

// Error writes an error as the last line of a log in JSON.
func Error(w io.Writer, text string, fields ...report.Field) {
	log := logrus.New()
	log.SetOutput(w)
	log.SetFormatter(jsonLines{})
	log.WithFields(ordered(fields)).Error(text)
}

// Info implements report.Reporter.
func (r *Reporter) Info(message string, fields ...report.Field) {
	r.log.WithFields(ordered(fields)).Info(message)
}

// Warn implements report.Reporter.
func (r *Reporter) Warn(message string, fields ...report.Field) {
	r.log.WithFields(ordered(fields)).Warn(message)
}

// Tasks announces tasks, for a bar that sums them up.
func (r *Reporter) Tasks(count int, expectedBytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tasks = announced{count, expectedBytes}
}

// Task begins a bar on a terminal, and else a line now and then.
func (r *Reporter) Task(name string, expectedBytes int64) report.Task {
	if !r.hasBars {
		return &lineTask{r: r, name: name, expected: expectedBytes, began: time.Now(), said: time.Now()}
	}
	return r.beginBar(name, expectedBytes)
}

// Close ends the bars. Log lines still work after it, and a new task begins
// new bars.
func (r *Reporter) Close() {
	r.mu.Lock()
	bars, total := r.bars, r.total
	r.bars, r.total, r.tasks = nil, nil, announced{}
	r.mu.Unlock()
	if bars == nil {
		return
	}
	if total != nil {
		total.bar.Abort(true)
	}
	bars.Wait() // for the last screen, which has no bars: every task has ended
	r.log.SetOutput(r.out)
}

// sayEvery is how often a task without a terminal says how far it is.
const sayEvery = 30 * time.Second

// lineTask is a task in cron's mail.
type lineTask struct {
	r        *Reporter
	name     string
	expected int64
	began    time.Time

	mu   sync.Mutex
	said time.Time
	last int64
}

func (t *lineTask) Progress(bytes int64) {
	t.mu.Lock()
	t.last = bytes
	due := time.Since(t.said) >= sayEvery
	if due {
		t.said = time.Now()
	}
	t.mu.Unlock()
	if due {
		t.say(bytes)
	}
}

func (t *lineTask) say(bytes int64) {
	took := time.Since(t.began)
	fields := []report.Field{
		report.F("task", t.name), report.F("bytes", bytesize.Format(bytes)),
		report.F("rate", bytesize.Format(int64(float64(bytes)/took.Seconds()))+"/s"),
	}
	if t.expected > bytes && bytes > 0 {
		left := time.Duration(float64(took) * float64(t.expected-bytes) / float64(bytes))
		fields = append(fields, report.F("expected", bytesize.Format(t.expected)), report.F("left", left.Round(time.Second).String()))
	}
	t.r.Info("in progress", fields...)
}

func (t *lineTask) End(err error) {
	t.mu.Lock()
	last := t.last
	t.mu.Unlock()
	t.r.ended(t.name, last, time.Since(t.began), err)
}

// ended says how a task ended. Its error is printed once, at the end of the
// command; here only where in the order of things it happened.
func (r *Reporter) ended(name string, bytes int64, took time.Duration, err error) {
	fields := []report.Field{report.F("task", name), report.F("bytes", bytesize.Format(bytes)), report.F("took", ShortTime(took.Seconds()))}
	if err != nil {
		r.Warn("failed", append(fields, report.F("because", FirstLine(err)))...)
		return
	}
	r.Info("done", fields...)
}
