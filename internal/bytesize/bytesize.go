// Package bytesize reads and prints amounts of bytes as PostgreSQL does: kB,
// MB, GB and TB are powers of 1024 (PostgreSQL manual, "Parameter Names and
// Values").
package bytesize

import (
	"fmt"
	"strconv"
	"strings"
)

var units = []struct {
	name  string
	bytes int64
}{{"TB", 1 << 40}, {"GB", 1 << 30}, {"MB", 1 << 20}, {"kB", 1 << 10}, {"B", 1}}

// Format prints an amount with three significant digits: "1.25 GB", "512 B".
func Format(n int64) string {
	if n < 0 {
		return "unknown"
	}
	for _, u := range units {
		if n < u.bytes || u.bytes == 1 {
			continue
		}
		v := float64(n) / float64(u.bytes)
		switch {
		case v < 10:
			return fmt.Sprintf("%.2f %s", v, u.name)
		case v < 100:
			return fmt.Sprintf("%.1f %s", v, u.name)
		default:
			return fmt.Sprintf("%.0f %s", v, u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

// Parse reads "5GB", "1.5 TB", "100kB", "4096" or "4096B"; the unit's case does
// not matter, and KiB, MiB, GiB and TiB are the same.
func Parse(s string) (int64, error) {
	text := strings.ToUpper(strings.TrimSpace(s))
	text = strings.Replace(text, "IB", "B", 1)
	factor := int64(1)
	for _, u := range units {
		if number, ok := strings.CutSuffix(text, strings.ToUpper(u.name)); ok {
			text, factor = strings.TrimSpace(number), u.bytes
			break
		}
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 && n <= (1<<63-1)/factor {
		return n * factor, nil
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v >= 0) || v*float64(factor) >= 1<<63 {
		return 0, fmt.Errorf("%q is not an amount of bytes such as 5GB, 512MB or 100kB", s)
	}
	return int64(v * float64(factor)), nil
}
