// Package stores opens a store by what its user calls it: the path of a folder,
// or a URL. It is the one place that knows all kinds.
package stores
