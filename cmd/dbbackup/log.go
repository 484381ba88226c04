package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"dbbackup/internal/bytesize"
	"dbbackup/internal/fault"
	"dbbackup/internal/pgname"
	"dbbackup/internal/report"
)

// logReporter writes what the verbs report to standard error: as log lines,
// and on a terminal also as one bar per task and one for their total.
type logReporter struct {
	log *logrus.Logger
	out io.Writer

	mu    sync.Mutex
	bars  *mpb.Progress // nil without a terminal, and after close
	total *totalBar
}

func newLogReporter(w io.Writer, format string, quiet, terminal bool) (*logReporter, error) {
	r := &logReporter{log: logrus.New(), out: w}
	r.log.SetOutput(w)
	if quiet {
		r.log.SetLevel(logrus.WarnLevel)
	}
	switch format {
	case "json":
		r.log.SetFormatter(&logrus.JSONFormatter{TimestampFormat: time.RFC3339})
		return r, nil
	case "text":
		r.log.SetFormatter(&logrus.TextFormatter{DisableColors: true, FullTimestamp: true, TimestampFormat: time.RFC3339})
	default:
		return nil, fault.New(fault.Usage, "", "--log-format: %q is neither text nor json", format)
	}
	if terminal && !quiet {
		r.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(80), mpb.WithRefreshRate(200*time.Millisecond))
		r.log.SetOutput(r.bars) // lines appear above the bars
	}
	return r, nil
}

func (r *logReporter) Info(message string, fields ...report.Field) {
	r.log.WithFields(logFields(fields)).Info(message)
}

func (r *logReporter) Warn(message string, fields ...report.Field) {
	r.log.WithFields(logFields(fields)).Warn(message)
}

func logFields(fields []report.Field) logrus.Fields {
	m := logrus.Fields{}
	for _, f := range fields {
		switch value := f.Value.(type) {
		case error:
			m[f.Key] = value.Error()
		case fmt.Stringer:
			m[f.Key] = value.String()
		default:
			m[f.Key] = value
		}
	}
	return m
}

// close ends the bars. Log lines still work after it.
func (r *logReporter) close() {
	r.mu.Lock()
	bars, total := r.bars, r.total
	r.bars, r.total = nil, nil
	r.mu.Unlock()
	if bars == nil {
		return
	}
	if total != nil {
		total.bar.Abort(true)
	}
	bars.Shutdown()
	r.log.SetOutput(r.out)
}

// Task begins a bar on a terminal, and else a line now and then.
func (r *logReporter) Task(name string, expectedBytes int64) report.Task {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bars == nil {
		return &lineTask{r: r, name: name, expected: expectedBytes, began: time.Now(), said: time.Now()}
	}
	if r.total == nil {
		r.total = newTotalBar(r.bars)
	}
	r.total.expect(expectedBytes)
	return &barTask{r: r, name: name, bar: newBar(r.bars, name, expectedBytes), total: r.total, began: time.Now()}
}

// shownName keeps a bar's line within 80 columns.
func shownName(name string) string {
	shown := []rune(pgname.Printable(name))
	if len(shown) > 18 {
		shown = append(shown[:17], '…')
	}
	return string(shown)
}

func newBar(bars *mpb.Progress, name string, expected int64) *mpb.Bar {
	return bars.AddBar(max(expected, 1),
		mpb.PrependDecorators(decor.Name(shownName(name), decor.WC{W: 19, C: decor.DindentRight})),
		mpb.AppendDecorators(
			decor.CurrentKibiByte("% .1f", decor.WC{W: 11}),
			decor.AverageSpeed(decor.SizeB1024(0), "% .1f", decor.WC{W: 13}),
			decor.OnComplete(decor.AverageETA(decor.ET_STYLE_GO, decor.WC{W: 8}), "    done"),
		), mpb.BarRemoveOnComplete())
}

// totalBar sums up the tasks, below them.
type totalBar struct {
	mu       sync.Mutex
	bar      *mpb.Bar
	expected int64
}

func newTotalBar(bars *mpb.Progress) *totalBar {
	return &totalBar{bar: bars.AddBar(0,
		mpb.BarPriority(1<<20),
		mpb.PrependDecorators(decor.Name("total", decor.WC{W: 19, C: decor.DindentRight})),
		mpb.AppendDecorators(
			decor.CurrentKibiByte("% .1f", decor.WC{W: 11}),
			decor.AverageSpeed(decor.SizeB1024(0), "% .1f", decor.WC{W: 13}),
			decor.AverageETA(decor.ET_STYLE_GO, decor.WC{W: 8}),
		))}
}

func (t *totalBar) expect(bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expected += bytes
	t.bar.SetTotal(t.expected, false)
}

func (t *totalBar) add(bytes int64) { t.bar.IncrInt64(bytes) }

// barTask is a task on a terminal.
type barTask struct {
	r     *logReporter
	name  string
	bar   *mpb.Bar
	total *totalBar
	began time.Time

	mu   sync.Mutex
	last int64
}

func (t *barTask) Progress(bytes int64) {
	t.mu.Lock()
	moved := bytes - t.last
	t.last = bytes
	t.mu.Unlock()
	t.bar.SetCurrent(bytes)
	t.total.add(moved)
}

func (t *barTask) End(err error) {
	t.mu.Lock()
	last := t.last
	t.mu.Unlock()
	t.bar.Abort(true)
	t.r.ended(t.name, last, time.Since(t.began), err)
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
	fields := []report.Field{report.F("task", name), report.F("bytes", bytesize.Format(bytes)), report.F("took", took.Round(10*time.Millisecond).String())}
	if err != nil {
		r.Warn("failed", append(fields, report.F("because", firstLine(err)))...)
		return
	}
	r.Info("done", fields...)
}
