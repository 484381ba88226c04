package zoo

// LoadShared lets tests complete a copy of a database.
var LoadShared = loadShared
