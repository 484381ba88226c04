package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/vbauerster/mpb/v8"

	"dbbackup/internal/bytesize"
	"dbbackup/internal/fault"
	"dbbackup/internal/report"
)

// logReporter writes what the verbs report to standard error: as log lines,
// and on a terminal also as one bar per task and one for their total.
type logReporter struct {
	log     *logrus.Logger
	out     io.Writer
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

// newLogReporter logs in a format, text or json. columns is the width of the
// terminal, or 0 where there is none.
func newLogReporter(w io.Writer, format string, quiet bool, columns int, bars bool) (*logReporter, error) {
	r := &logReporter{log: logrus.New(), out: w, hasBars: bars && columns > 0 && !quiet && format == "text"}
	r.log.SetOutput(w)
	if quiet {
		r.log.SetLevel(logrus.WarnLevel)
	}
	switch format {
	case "json":
		r.log.SetFormatter(jsonLines{})
	case "text":
		r.log.SetFormatter(textLines{columns: columns})
	default:
		return nil, fault.New(fault.Usage, "", "--log-format: %q is neither text nor json", format)
	}
	return r, nil
}

func (r *logReporter) Info(message string, fields ...report.Field) {
	r.log.WithFields(ordered(fields)).Info(message)
}

func (r *logReporter) Warn(message string, fields ...report.Field) {
	r.log.WithFields(ordered(fields)).Warn(message)
}

// Tasks announces tasks, for a bar that sums them up.
func (r *logReporter) Tasks(count int, expectedBytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tasks = announced{count, expectedBytes}
}

// Task begins a bar on a terminal, and else a line now and then.
func (r *logReporter) Task(name string, expectedBytes int64) report.Task {
	if !r.hasBars {
		return &lineTask{r: r, name: name, expected: expectedBytes, began: time.Now(), said: time.Now()}
	}
	return r.beginBar(name, expectedBytes)
}

// close ends the bars. Log lines still work after it, and a new task begins
// new bars.
func (r *logReporter) close() {
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
	r        *logReporter
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
func (r *logReporter) ended(name string, bytes int64, took time.Duration, err error) {
	fields := []report.Field{report.F("task", name), report.F("bytes", bytesize.Format(bytes)), report.F("took", shortTime(took.Seconds()))}
	if err != nil {
		r.Warn("failed", append(fields, report.F("because", firstLine(err)))...)
		return
	}
	r.Info("done", fields...)
}

// logsJSON reports whether the log is JSON. Errors in the command line come
// before there is a log, so that the arguments are looked at as they are.
func (a *application) logsJSON() bool {
	if a.log != nil {
		_, isJSON := a.log.log.Formatter.(jsonLines)
		return isJSON
	}
	format := a.lookup("DBBACKUP_LOG_FORMAT")
	for i, arg := range a.args {
		name, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case arg == "--":
			return format == "json"
		case !isFlag(arg) || name != "log-format":
		case hasValue:
			format = value
		case i+1 < len(a.args):
			format = a.args[i+1]
		}
	}
	return format == "json"
}

// printErrorJSON is the last line of a log in JSON.
func (a *application) printErrorJSON(text string, code int, hints []string) {
	log := logrus.New()
	log.SetOutput(a.stderr)
	log.SetFormatter(jsonLines{})
	log.WithFields(ordered([]report.Field{report.F("exit_code", code), report.F("hints", append([]string{}, hints...))})).
		Error(fmt.Sprint(text))
}
