# Computes the report's main numbers again from the released answers and says whether they agree.
#
#   Rscript recompute.R [folder of the release]        base R, nothing of the study
#
# Reads readings.csv (every answer), readers.csv, per_image.csv (`cluster`: images of one prompt or
# of one patient, which are not independent) and main_numbers.csv (the numbers as reported). The
# exit code is 0 when all agree. recompute.py does the same with pandas and scipy.

LABELS <- c("real", "fake", "uncertain")
CLOSE <- 1e-6
Z <- qnorm(0.975)

wilson <- function(share, effective) {
  shrunk <- 1 + Z^2 / effective
  middle <- (share + Z^2 / (2 * effective)) / shrunk
  half <- Z * sqrt(share * (1 - share) / effective + (Z / (2 * effective))^2) / shrunk
  c(if (share == 0) 0 else middle - half, if (share == 1) 1 else middle + half)
}

# Values, one row per image, added up within clusters.
in_clusters <- function(values, clusters) rowsum(as.matrix(values), clusters)

# A share with Wilson's interval at the effective number of answers (Korn and Graubard 1998), that
# number, and its degrees of freedom.
share <- function(hits, clusters) {
  estimate <- mean(hits)
  total <- length(hits)
  sizes <- in_clusters(rep(1, total), clusters)
  groups <- length(sizes)
  effective <- total
  few <- 1
  df <- Inf
  if (groups < total) {
    df <- max(groups - 1, 1)
    sandwich <- sum(in_clusters(hits - estimate, clusters)^2) / total^2 * groups / df
    spread <- estimate * (1 - estimate) * total / (total - 1)
    alike <- total^2 / sum(sizes^2)
    effective <- if (groups == 1) 1 else if (sandwich > 1e-15) spread / sandwich else alike
    few <- (Z / qt(0.975, df))^2
  }
  held <- wilson(estimate, min(max(effective * few, 1), total))
  list(told = c(estimate, held), effective = min(max(effective, 1), total), df = df)
}

satterthwaite <- function(variance, df) {
  below <- sum(variance^2 / df)
  if (below > 0) sum(variance)^2 / below else Inf
}

spread_of <- function(influence, clusters) {
  total <- in_clusters(influence / length(influence), clusters)
  sizes <- in_clusters(rep(1, length(influence)), clusters)^2
  groups <- nrow(total)
  effective <- max(sum(sizes)^2 / sum(sizes^2), min(groups, 2))
  c(sqrt(groups / max(groups - 1, 1) * sum(total^2)), effective)
}

# A coefficient with the standard error of its linearisation (Gwet 2014), and the effective number
# of images.
linearised <- function(observed, chance, beyond, per_image, clusters) {
  estimate <- (observed - chance) / (1 - chance)
  linear <- beyond / (1 - chance) - 2 * (1 - estimate) * (per_image - chance) / (1 - chance)
  c(estimate, spread_of(linear - estimate, clusters))
}

krippendorff <- function(counts, clusters) {
  rated <- rowSums(counts)
  total <- sum(counts)
  shares <- colSums(counts) / total
  chance <- sum(shares^2)
  alike <- rowSums(counts * (counts - 1)) / (mean(rated) * (rated - 1))
  uncorrected <- (mean(alike) - chance) / (1 - chance)
  corrected <- (1 - 1 / total) * mean(alike) + 1 / total
  surplus <- (rated - mean(rated)) / mean(rated)
  linear <- (alike - corrected * surplus - chance) / (1 - chance)
  per_image <- as.vector(counts %*% shares) / mean(rated) - chance * surplus
  linear <- linear - 2 * (1 - uncorrected) * (per_image - chance) / (1 - chance)
  c((corrected - chance) / (1 - chance), spread_of(linear - uncorrected, clusters))
}

cohen <- function(labels, clusters, clustered) {
  own <- lapply(1:2, function(g) table(factor(labels[, g], LABELS)) / nrow(labels))
  alike <- as.numeric(labels[, 1] == labels[, 2])
  chance <- sum(own[[1]] * own[[2]])
  per_image <- as.vector(own[[2]][labels[, 1]] + own[[1]][labels[, 2]]) / 2
  found <- linearised(mean(alike), chance, alike - chance, per_image, clusters)
  # Without clusters the report has the asymptotic standard error (Fleiss, Cohen, Everitt 1969).
  if (!clustered) found[2] <- found[2] * sqrt(1 - 1 / nrow(labels))
  found
}

# Percent, Cohen, Fleiss, AC1 and Krippendorff's alpha with intervals on the atanh scale.
agreement <- function(labels, clusters, group, clustered) {
  labels <- labels[, colSums(!is.na(labels)) > 0, drop = FALSE]
  kept <- rowSums(!is.na(labels)) > 0
  if (!any(kept)) return()
  labels <- labels[kept, , drop = FALSE]
  clusters <- clusters[kept]
  counts <- sapply(LABELS, function(label) rowSums(labels == label, na.rm = TRUE))
  counts <- matrix(counts, ncol = length(LABELS))
  rated <- rowSums(counts)
  several <- rated >= 2
  if (!any(several)) return()
  readers <- ncol(labels)
  images <- nrow(labels)
  alike <- rowSums(counts * (counts - 1)) / ifelse(several, rated * (rated - 1), 1)
  observed <- mean(alike[several])
  shares <- counts / rated
  # An image rated once counts for the chance term alone.
  means <- colMeans(shares)
  scale <- images / sum(several)
  terms <- list(
    percent = list(0, rep(0, images)),
    fleiss = list(sum(means^2), as.vector(shares %*% means)),
    gwet = list(sum(means * (1 - means)) / 2, as.vector(shares %*% (1 - means)) / 2)
  )
  found <- list()
  for (name in names(terms)) {
    chance <- terms[[name]][[1]]
    beyond <- scale * (alike - chance * several)
    if (chance < 1 - 1e-12)
      found[[name]] <- linearised(observed, chance, beyond, terms[[name]][[2]], clusters)
  }
  # An image rated once adds nothing to percent agreement.
  if (observed %in% c(0, 1))
    found$percent <- c(observed, spread_of(rep(0, sum(several)), clusters[several]))
  if (max(means) < 1) {
    found$krippendorff <- krippendorff(counts[several, , drop = FALSE], clusters[several])
    both <- rowSums(is.na(labels)) == 0
    if (readers == 2)
      found$cohen <- cohen(labels[both, , drop = FALSE], clusters[both], clustered)
  }
  for (name in names(found)) {
    estimate <- found[[name]][1]
    se <- found[[name]][2]
    t <- if (found[[name]][3] > 1) qt(0.975, found[[name]][3] - 1) else NA
    if (name == "percent") {
      spread <- estimate * (1 - estimate)
      most <- images * readers * (readers - 1) / 2
      enough <- if (se > 1e-9) min(spread / se^2 * (Z / t)^2, most) else found[[name]][3]
      held <- wilson(round(estimate, 12), enough)
    } else {
      half <- if (isTRUE(abs(estimate) < 1)) t * se / (1 - estimate^2) else NA
      held <- if (isTRUE(half > 0)) tanh(atanh(estimate) + c(-half, half)) else c(NA, NA)
    }
    keep(name, group, "", c(estimate, held))
  }
}

# With the log-linear correction (Hautus 1995).
dprime <- function(positive, truth, clusters) {
  parts <- sapply(0:1, function(kind) {
    hits <- positive[truth == kind]
    found <- share(hits, clusters[truth == kind])
    rate <- (sum(hits) + 0.5) / (length(hits) + 1)
    z <- qnorm(rate)
    c(z, rate * (1 - rate) / (found$effective * dnorm(z)^2), found$df)
  })
  half <- qt(0.975, satterthwaite(parts[2, ], parts[3, ])) * sqrt(sum(parts[2, ]))
  parts[1, 2] - parts[1, 1] + c(0, -half, half)
}

# Shares of one reader under the policies for "uncertain", and d' at both thresholds.
accuracy <- function(labels, truth, clusters, reader) {
  given <- !is.na(labels)
  labels <- labels[given]
  truth <- truth[given]
  clusters <- clusters[given]
  counted <- function(number, group, hits, inside)
    if (any(inside)) keep(number, group, reader, share(hits[inside], clusters[inside])$told)
  right <- labels == ifelse(truth == 1, "fake", "real")
  for (policy in c("wrong", "dropped")) {
    kept <- policy == "wrong" | labels != "uncertain"
    counted("sensitivity", policy, right, kept & truth == 1)
    counted("specificity", policy, right, kept & truth == 0)
    counted("accuracy", policy, right, kept)
  }
  for (label in LABELS) for (kind in 0:1)
    counted(paste(label, "of", c("real", "generated")[kind + 1]), "own", labels == label,
            truth == kind)
  if (length(unique(truth)) == 2) {
    keep("dprime fake | rest", "none", reader, dprime(labels == "fake", truth, clusters))
    keep("dprime real | rest", "none", reader, dprime(labels != "real", truth, clusters))
  }
}

# Each reader's area, how far every image moves it (DeLong's placements), and the number of clusters
# of real and of generated images.
influence <- function(scores, truth, clusters, jackknife = FALSE) {
  areas <- numeric(ncol(scores))
  moved <- matrix(0, nrow(scores), ncol(scores))
  groups <- c(Inf, Inf)
  for (g in seq_len(ncol(scores))) {
    images <- lapply(0:1, function(kind) which(!is.na(scores[, g]) & truth == kind))
    apart <- outer(scores[images[[2]], g], scores[images[[1]], g], "-")
    above <- (apart > 0) + 0.5 * (apart == 0)
    areas[g] <- mean(above)
    placed <- list(colMeans(above), rowMeans(above))
    for (kind in 1:2) {
      own <- images[[kind]]
      number <- length(unique(clusters[own]))
      scale <- sqrt(number / max(number - 1, 1))
      if (jackknife) scale <- scale^2 * sqrt(1 - 1 / length(unique(clusters)))
      moved[own, g] <- scale * (placed[[kind]] - areas[g]) / length(own)
      groups[kind] <- min(groups[kind], number)
    }
  }
  list(areas = areas, moved = moved, groups = groups)
}

covariance <- function(moved, truth, clusters, groups) {
  parts <- lapply(0:1, function(kind)
    crossprod(in_clusters(moved[truth == kind, , drop = FALSE], clusters[truth == kind])))
  list(matrix = parts[[1]] + parts[[2]], df = satterthwaite(sapply(parts, mean), pmax(groups - 1, 1)))
}

# Standard error and degrees of freedom over random readers and images (Obuchowski and Rockette
# 1995, Hillis 2007).
random_readers <- function(areas, matrix, images) {
  readers <- length(areas)
  between <- (sum(matrix) - sum(diag(matrix))) / (readers * (readers - 1))
  parts <- c(var(areas), readers * max(between, 0))
  c(sqrt(sum(parts) / readers), satterthwaite(parts, c(readers - 1, images)))
}

on_logit <- function(area, se, df) {
  if (area <= 0 || area >= 1 || se < 1e-12) return(c(area, NA, NA))
  half <- qt(0.975, df) * se / (area * (1 - area))
  c(area, plogis(qlogis(area) + c(-half, half)))
}

# The readers with two scores of each kind in every set of images.
able <- function(scores, truth, sets) {
  fewest <- sapply(sets, function(chosen) sapply(0:1, function(kind)
    colSums(!is.na(scores[chosen & truth == kind, , drop = FALSE])), simplify = "array"),
    simplify = "array")
  fewest <- matrix(fewest, nrow = ncol(scores))
  scores[, apply(fewest, 1, min) >= 2, drop = FALSE]
}

# Areas under the ROC curve: of each reader, of these readers and of readers in general.
areas <- function(scores, truth, clusters, clustered) {
  everything <- list(rep(TRUE, nrow(scores)))
  for (reader in colnames(scores)) {
    one <- scores[, reader, drop = FALSE]
    if (ncol(able(one, truth, everything)) == 1) {
      found <- influence(one, truth, clusters)
      over <- covariance(found$moved, truth, clusters, found$groups)
      keep("area", "all", reader, on_logit(found$areas, sqrt(over$matrix[1]), over$df))
    }
  }
  scores <- able(scores, truth, everything)
  if (ncol(scores)) for (method in c("delong", "jackknife")) {
    found <- influence(scores, truth, clusters, method == "jackknife")
    over <- covariance(found$moved, truth, clusters, found$groups)
    area <- mean(found$areas)
    if (method == "delong")
      keep("mean area", "these readers", "", on_logit(area, sqrt(mean(over$matrix)), over$df))
    if (ncol(scores) > 1) {
      spread <- random_readers(found$areas, over$matrix, if (clustered) over$df else Inf)
      group <- paste("readers in general,", method)
      keep("mean area", group, "", on_logit(area, spread[1], spread[2]))
      p <- if (spread[1] > 1e-12) 2 * pt(-abs(area - 0.5) / spread[1], spread[2]) else NA
      keep("p of the mean area", group, "", c(p, NA, NA))
    }
  }
}

# Mean areas of two generators beside the same real images, and of two modalities.
differences <- function(scores, truth, images, clusters, clustered) {
  for (by in c("modality", "generator")) {
    names <- sort(unique(images[[by]][!is.na(images[[by]])]), method = "radix")
    if (length(names) < 2) next
    for (pair in combn(names, 2, simplify = FALSE)) {
      sets <- lapply(pair, function(name) {
        chosen <- !is.na(images[[by]]) & images[[by]] == name
        beside <- images$modality %in% images$modality[chosen]
        if (by == "generator") chosen | (beside & truth == 0) else chosen
      })
      kept <- able(scores, truth, sets)
      if (!ncol(kept)) next
      parts <- lapply(sets, function(chosen) {
        own <- influence(kept[chosen, , drop = FALSE], truth[chosen], clusters[chosen], clustered)
        moved <- matrix(0, nrow(kept), ncol(kept))
        moved[chosen, ] <- own$moved
        list(areas = own$areas, moved = moved, groups = own$groups)
      })
      away <- parts[[1]]$areas - parts[[2]]$areas
      over <- covariance(parts[[1]]$moved - parts[[2]]$moved, truth, clusters,
                         pmin(parts[[1]]$groups, parts[[2]]$groups))
      group <- paste0(by, ": ", pair[1], " minus ", pair[2])
      told <- function(whose, se, df) {
        half <- qt(0.975, df) * se
        held <- pmin(pmax(mean(away) + c(-half, half), -1), 1)
        keep(paste("difference of mean areas,", whose), group, "", c(mean(away), held))
      }
      told("these readers", sqrt(mean(over$matrix)), over$df)
      if (length(away) > 1) {
        spread <- random_readers(away, over$matrix, if (clustered) over$df else Inf)
        told("readers in general", spread[1], spread[2])
      }
    }
  }
}

FOUND <- new.env()
keep <- function(number, group, reader, values)
  assign(paste(number, group, reader, sep = " @ "), as.numeric(values), envir = FOUND)

# A table. Names stay text, also those that look like a number.
read <- function(folder, name) {
  path <- file.path(folder, name)
  header <- names(read.csv(path, nrows = 1, check.names = FALSE))
  kinds <- ifelse(header %in% c("image_id", "generator"), "character", NA)
  read.csv(path, na.strings = "", check.names = FALSE, encoding = "UTF-8", colClasses = kinds)
}

recompute <- function(folder) {
  readings <- read(folder, "readings.csv")
  people <- read(folder, "readers.csv")$reader
  images <- read(folder, "per_image.csv")
  images <- images[order(images$image_id, method = "radix"), ]
  first <- readings[readings$presentation == 1, ]
  sure <- if (is.null(first$confidence)) 1 else first$confidence
  sign <- c(real = -1, fake = 1, uncertain = 0)[first$label]
  labels <- matrix(NA_character_, nrow(images), length(people), dimnames = list(NULL, people))
  scores <- matrix(NA_real_, nrow(images), length(people), dimnames = list(NULL, people))
  place <- cbind(match(first$image_id, images$image_id), match(first$reader, people))
  labels[place] <- first$label
  scores[place] <- sign * ifelse(is.na(sure), 1, as.numeric(sure))
  truth <- as.integer(images$origin == "generated")
  clusters <- images$cluster
  clustered <- any(duplicated(clusters))
  for (group in unique(paste(images$modality, images$origin))) {
    inside <- paste(images$modality, images$origin) == group
    own <- labels[inside, , drop = FALSE]
    given <- rowSums(!is.na(own))
    alike <- function(number, hits, of)
      if (any(of)) keep(number, group, "", share(hits[of], clusters[inside][of])$told)
    complete <- given == length(people)
    alike("all real", rowSums(own == "real") == length(people), complete)
    alike("all uncertain", rowSums(own == "uncertain") == length(people), complete)
    alike("two fake", rowSums(own == "fake", na.rm = TRUE) >= 2, given >= 2)
  }
  agreement(labels, clusters, "all", clustered)
  for (by in c("modality", "origin")) for (name in unique(images[[by]])) {
    inside <- images[[by]] == name
    agreement(labels[inside, , drop = FALSE], clusters[inside], name, clustered)
  }
  for (reader in people) accuracy(labels[, reader], truth, clusters, reader)
  rated <- rowSums(!is.na(scores)) > 0
  scores <- scores[rated, , drop = FALSE]
  truth <- truth[rated]
  if (length(unique(truth)) == 2) {
    areas(scores, truth, clusters[rated], clustered)
    differences(scores, truth, images[rated, ], clusters[rated], clustered)
  }
}

main <- function(folder) {
  reported <- read(folder, "main_numbers.csv")
  recompute(folder)
  wrong <- 0
  for (row in seq_len(nrow(reported))) {
    reader <- reported$reader[row]
    key <- paste(reported$number[row], reported$group[row], ifelse(is.na(reader), "", reader),
                 sep = " @ ")
    own <- if (exists(key, envir = FOUND)) get(key, envir = FOUND) else rep(NA, 3)
    told <- unlist(reported[row, c("estimate", "low", "high")])
    # Where the report gives no interval, with its reason, there is nothing to compare.
    same <- all(is.na(told) | (!is.na(own) & abs(told - own) < CLOSE))
    wrong <- wrong + !same
    print_ <- function(values) paste(sprintf("%.4f", values[!is.na(told)]), collapse = " ")
    verdict <- if (same) "agrees" else paste("DIFFERS:", print_(own), "recomputed")
    cat(reported$number[row], " | ", reported$group[row], " | ",
        if (is.na(reader)) "all readers" else reader, ": ", print_(told), " ", verdict, "\n",
        sep = "")
  }
  cat(nrow(reported) - wrong, "of", nrow(reported), "numbers agree with the report.\n")
  as.integer(wrong > 0 || nrow(reported) == 0)
}

given <- commandArgs(trailingOnly = TRUE)
script <- sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE))
folder <- if (length(given)) given[1] else if (length(script)) dirname(script[1]) else "."
quit(status = main(folder))
