package sqltext

import "bytes"

// ClusterDumpTrailer is the line that pg_dumpall ends its output with, when it
// could write all of it.
const ClusterDumpTrailer = "-- PostgreSQL database cluster dump complete"

// CompleteCluster is Complete for the output of pg_dumpall, which says
// \unrestrict before its trailer. The error is fault.Integrity.
func (c *TailCheck) CompleteCluster() error {
	const trailer = "\n--\n" + ClusterDumpTrailer + "\n--\n"
	at := bytes.LastIndex(c.tail, []byte(trailer))
	if at < 0 {
		return cutDump("it does not end with %q", ClusterDumpTrailer)
	}
	if rest := bytes.TrimSpace(c.tail[at+len(trailer):]); len(rest) > 0 {
		return cutDump("%q follows its end", rest)
	}
	return nil
}
