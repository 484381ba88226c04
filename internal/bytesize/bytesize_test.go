package bytesize

import "testing"

func TestFormat(t *testing.T) {
	for _, tt := range []struct {
		n    int64
		want string
	}{{0, "0 B"}, {1023, "1023 B"}, {1024, "1.00 kB"}, {5 << 30, "5.00 GB"}, {1536 << 20, "1.50 GB"}, {123 << 20, "123 MB"}, {3 << 40, "3.00 TB"}, {-1, "unknown"}} {
		if got := Format(tt.n); got != tt.want {
			t.Errorf("Format(%d) = %q, want %q", tt.n, got, tt.want)
		}
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		s    string
		want int64
	}{{"5GB", 5 << 30}, {"5 gb", 5 << 30}, {"1.5TB", 3 << 39}, {"100kB", 100 << 10}, {"4096", 4096}, {"12B", 12}, {"2GiB", 2 << 30}, {"0", 0}} {
		if got, err := Parse(tt.s); err != nil || got != tt.want {
			t.Errorf("Parse(%q) = %d, %v, want %d", tt.s, got, err, tt.want)
		}
	}
	for _, s := range []string{"", "GB", "-1GB", "5XB", "1e400TB", "9999999999TB", "NaN", "five"} {
		if got, err := Parse(s); err == nil {
			t.Errorf("Parse(%q) = %d, want an error", s, got)
		}
	}
}
