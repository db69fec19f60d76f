"""How many trusted rows it takes for others to be judged against them alone."""

# the share of reference scores that the tail is fitted to; the smaller where the larger does not
# follow the fit
TAILS = (0.1, 0.05)
LEAST_EXCEEDANCES = 10
LEAST_TRUSTED = round(LEAST_EXCEEDANCES / TAILS[0])
