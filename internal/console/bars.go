package console

import (
	"fmt"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"dbbackup/internal/bytesize"
	"dbbackup/internal/pgname"
)

// NameColumns is the width of a name at the beginning of a table's row or a bar.
const NameColumns = 18

// Columns of a bar's line, which is 78 wide in all.
const (
	barColumns = 22
	refresh    = 200 * time.Millisecond
)

// beginBar adds a task's bar, above the one of the total.
func (r *Reporter) beginBar(name string, expected int64) *barTask {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bars == nil {
		r.bars = mpb.New(mpb.WithOutput(r.out), mpb.WithWidth(barColumns), mpb.WithRefreshRate(refresh))
		r.log.SetOutput(r.bars) // lines appear above the bars
	}
	if r.total == nil && r.tasks.count > 1 {
		r.total = &totalBar{bar: newBar(r.bars, "total", r.tasks.expected, mpb.BarPriority(1<<20)), expected: r.tasks.expected}
	}
	return &barTask{r: r, name: name, expected: expected, bar: newBar(r.bars, Cut(pgname.Printable(name), NameColumns), expected), total: r.total, began: time.Now()}
}

// newBar makes a bar that ends when it is told to, and not when an estimate
// was too low.
func newBar(bars *mpb.Progress, name string, expected int64, options ...mpb.BarOption) *mpb.Bar {
	began := time.Now()
	column := func(width int, text func(done, total int64) string) decor.Decorator {
		return decor.Any(func(s decor.Statistics) string { return text(s.Current, s.Total) }, decor.WC{W: width})
	}
	bar := bars.New(0, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"), append(options,
		mpb.PrependDecorators(decor.Name(name, decor.WC{W: NameColumns, C: decor.DindentRight})),
		mpb.AppendDecorators(
			column(4, percent),
			column(10, func(done, _ int64) string { return bytesize.Format(done) }),
			column(12, func(done, _ int64) string { return rate(done, time.Since(began)) }),
			column(9, func(done, total int64) string { return left(done, total, time.Since(began)) }),
		))...)
	bar.SetTotal(expected, false)
	return bar
}

// percent stays below 100 until the end: what is expected is an estimate.
func percent(done, total int64) string {
	if total <= 0 {
		return ""
	}
	return fmt.Sprintf("%d%%", min(99, done*100/total))
}

func rate(done int64, took time.Duration) string {
	if took < time.Second || done <= 0 {
		return ""
	}
	return bytesize.Format(int64(float64(done)/took.Seconds())) + "/s"
}

// left is the time to the end, if all goes on as it went.
func left(done, total int64, took time.Duration) string {
	if done <= 0 || total <= done || took < time.Second {
		return ""
	}
	d := time.Duration(float64(took) * float64(total-done) / float64(done))
	if d >= time.Hour {
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d:%02d", d/time.Minute, d%time.Minute/time.Second)
}

// totalBar sums up the tasks, below them.
type totalBar struct {
	bar *mpb.Bar

	mu             sync.Mutex
	done, expected int64
}

// moved adds what a task moved, and by how much its expectation was wrong.
func (t *totalBar) moved(bytes, correction int64) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done, t.expected = t.done+bytes, t.expected+correction
	t.bar.SetTotal(t.expected, false)
	t.bar.SetCurrent(t.done)
}

// barTask is a task on a terminal.
type barTask struct {
	r        *Reporter
	name     string
	expected int64
	bar      *mpb.Bar
	total    *totalBar
	began    time.Time

	mu   sync.Mutex
	last int64
}

func (t *barTask) Progress(bytes int64) {
	t.mu.Lock()
	moved := bytes - t.last
	t.last = bytes
	t.mu.Unlock()
	t.bar.SetCurrent(bytes)
	t.total.moved(moved, 0)
}

func (t *barTask) End(err error) {
	t.mu.Lock()
	last := t.last
	t.mu.Unlock()
	t.bar.Abort(true)
	t.total.moved(0, last-t.expected)
	t.r.ended(t.name, last, time.Since(t.began), err)
}
