#include "sys/confined.h"

atomic_bool confined_set;
